#!/bin/sh
# Installs the real components that the tests talk to. What is there already is left alone; nothing is started.
set -eu
cd "$(dirname "$0")/.."
tools="$PWD/.tools"
moto_version=5.2.5
azure_compute_version=39.0.0
azure_network_version=33.1.0

install_debian() {
	missing=""
	for pair in "$@"; do
		command -v "${pair%%=*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${pair%%=*}" ] || missing="$missing ${pair#*=}"
	done
	[ -z "$missing" ] && return 0
	if ! command -v apt-get >/dev/null 2>&1; then
		echo "install-tools: please install these Debian packages or their like:$missing" >&2
		return 1
	fi
	sudo=""
	[ "$(id -u)" = 0 ] || sudo="sudo"
	echo "install-tools: installing$missing"
	$sudo apt-get update -qq
	# shellcheck disable=SC2086 # a list of words
	DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $missing >/dev/null
}

# command=package
install_debian xrdp=xrdp freerdp-shadow-cli=freerdp2-shadow-x11 xfreerdp=freerdp2-x11 Xvfb=xvfb Xtigervnc=tigervnc-standalone-server \
	sshd=openssh-server openssl=openssl curl=curl python3=python3 cc=gcc \
	adcli=adcli kinit=krb5-user ldapmodify=ldap-utils socat=socat ip=iproute2 unshare=util-linux
# A domain controller needs files of packages that have no command.
[ -e /usr/share/samba/setup/provision.ldif ] && [ -x /usr/sbin/samba ] ||
	install_debian samba-domain=samba-ad-dc samba-domain=samba-ad-provision samba-domain=samba-dsdb-modules \
		samba-domain=winbind

# moto answers the EC2 API. It gets an environment of its own, with every version pinned by this one.
if ! "$tools/moto/bin/python" -c "import moto, sys; sys.exit(moto.__version__ != '$moto_version')" 2>/dev/null; then
	echo "install-tools: installing moto $moto_version"
	rm -rf "$tools/moto"
	if ! python3 -m venv "$tools/moto" 2>/dev/null; then
		install_debian python3-venv-missing=python3-venv
		python3 -m venv "$tools/moto"
	fi
	"$tools/moto/bin/pip" install --quiet --disable-pip-version-check "moto[server,ec2]==$moto_version"
fi

# Microsoft's own SDK judges our stand-in for Azure.
if ! "$tools/azure/bin/python" -c "from importlib.metadata import version as v; import sys; sys.exit((v('azure-mgmt-compute'), v('azure-mgmt-network')) != ('$azure_compute_version', '$azure_network_version'))" 2>/dev/null; then
	echo "install-tools: installing azure-mgmt-compute $azure_compute_version"
	rm -rf "$tools/azure"
	python3 -m venv "$tools/azure"
	"$tools/azure/bin/pip" install --quiet --disable-pip-version-check \
		"azure-mgmt-compute==$azure_compute_version" "azure-mgmt-network==$azure_network_version"
fi
