Write-Host 1
if ($x) { 2 }
