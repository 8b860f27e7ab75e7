# no password is known here
$p = "{connection_password}"
