#!/bin/sh
# What a machine of the story does when it starts. Braces of the script itself are doubled.
say() {{
	echo "story: $*" >/dev/ttyS0
}}
cat >/etc/krb5.conf <<'X'
[libdefaults]
default_realm = EXAMPLE.LOCAL
dns_lookup_kdc = false
rdns = false
[realms]
EXAMPLE.LOCAL = {{
	kdc = 10.0.2.2
	kpasswd_server = 10.0.2.2
}}
X
# A home and a number for the user; who he is, and whether his password is right, the domain says.
useradd --create-home ann
chmod 666 /dev/ttyS0
sed -i -e 's/^autorun=.*/autorun=Xvnc/' -e '/^\[Xorg\]/,/^$/d' /etc/xrdp/xrdp.ini
printf '#!/bin/sh\necho "story: desktop of $(id -un)" >/dev/ttyS0\nexec sleep 3600\n' >/etc/xrdp/startwm.sh
chmod 755 /etc/xrdp/startwm.sh
mkdir -p /run/xrdp/sockdir
chmod 3777 /run/xrdp/sockdir
xrdp-sesman --nodaemon >/run/sesman.log 2>&1 &
xrdp --nodaemon >/run/xrdp.log 2>&1 &
if adcli join --one-time-password='{ad_join_credential}' --domain='{domain}' --domain-realm=EXAMPLE.LOCAL \
	--domain-controller=dc1.example.local --computer-name='{server_hostname}' \
	--host-fqdn='{server_hostname}'.'{domain}' >/run/adcli.log 2>&1; then
	say 'joined {domain} as {server_hostname}'
else
	say "did not join: $(tail -n 1 /run/adcli.log)"
	exit 1
fi
wget -q -O /dev/null --header 'Content-Type: application/json' \
	--post-data '{{"status": "running", "status_message": "joined {domain}", "status_progress": 100}}' \
	'http://{upstream_auth_address}/api/set_server_status?token={checkin_jwt}' || say 'did not check in'
