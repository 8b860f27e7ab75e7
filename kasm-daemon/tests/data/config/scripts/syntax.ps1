# {server_id}
$a = @{{ b = 1
