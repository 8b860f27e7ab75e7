#!/usr/bin/python3
"""What tests need of python3-samba: making a domain, changing it as its owner, and joining it as Windows does.

Runs with the system's interpreter, to which Debian's python3-samba belongs.

  provision FOLDER ADDRESS            makes the domain example.local and what the tests find in it
  add SMB_CONF                        adds the entries of an LDIF on standard input
  modify SMB_CONF                     makes the changes of an LDIF on standard input
  allow SMB_CONF ACCOUNT DN ACE       adds an ACE to an object, {sid} standing for the account
  sddl SMB_CONF DN SDDL               gives an object this DACL instead of its own, {NAME} standing for the account NAME
  move SMB_CONF FROM TO               moves an object
  show SMB_CONF DN                    prints an object as LDIF; nothing if there is none
  join SMB_CONF ADDRESS NAME          joins: the passwords, old and new, are two lines on standard input
"""

import os
import re
import sys

REALM = "EXAMPLE.LOCAL"
DOMAIN = "EXAMPLE"
BASE = "DC=example,DC=local"
COMPUTERS = "OU=Desktops," + BASE
# The schema's GUID of the class computer (MS-ADSC 2.21).
COMPUTER = "bf967a86-0de6-11d0-a285-00aa003049e2"


def provision(folder, address):
    import logging

    import samba.provision
    from samba.auth import system_session
    from samba.param import LoadParm

    # The share sysvol is not served, so its ACLs do not matter; setting them takes root and a file system that has them.
    samba.provision.setsysvolacl = lambda *_, **__: None
    lp = LoadParm()
    lp.load("/dev/null")
    lp.set("interfaces", address + "/8")
    lp.set("bind interfaces only", "yes")
    samba.provision.provision(
        logging.getLogger("provision"),
        system_session(),
        smbconf="/dev/null",
        targetdir=folder,
        realm=REALM,
        domain=DOMAIN,
        hostname="dc1",
        hostip=address,
        adminpass="Adm1n-Passw0rd!",
        serverrole="active directory domain controller",
        dns_backend="SAMBA_INTERNAL",
        dom_for_fun_level=samba.provision.DS_DOMAIN_FUNCTION_2008_R2,
        lp=lp,
        skip_sysvolacl=True,
        use_ntvfs=False,
    )
    furnish(owned(folder + "/etc/smb.conf"))


def furnish(sam):
    """The organisational unit, accounts and groups that the tests find."""
    sam.create_ou(COMPUTERS)
    sam.create_ou("OU=Pool A," + COMPUTERS)
    sam.create_ou("OU=People," + BASE)
    for name, password in (("svc-kasm", "Svc-Pa55word-1"), ("svc-weak", "Svc-Pa55word-2")):
        sam.newuser(name, password)
    people = [("ann", "Ann", "Example"), ("bob", "Bob", "Example"), ("cut", "Cut", "Off")]
    for name, given, family in people:
        sam.newuser(name, "User-Pa55word-1", userou="OU=People", givenname=given, surname=family)
    sam.disable_account("(sAMAccountName=cut)")
    sam.newgroup("desktop-users")
    sam.newgroup("students")
    sam.add_remove_group_members("students", ["ann"])
    sam.add_remove_group_members("desktop-users", ["students"])
    allow(sam, "svc-kasm", COMPUTERS, "(OA;CI;CCDC;%s;;{sid})" % COMPUTER)
    allow(sam, "svc-kasm", COMPUTERS, "(OA;CIIO;SDDT;;%s;{sid})" % COMPUTER)


def owned(conf):
    """The database itself, opened as the system."""
    from samba.auth import system_session
    from samba.param import LoadParm
    from samba.samdb import SamDB

    lp = LoadParm()
    lp.load(conf)
    lp.set("dsdb:schema update allowed", "yes")
    return SamDB(url=lp.private_path("sam.ldb"), session_info=system_session(), lp=lp)


def sid(sam, account):
    import ldb
    from samba.dcerpc import security
    from samba.ndr import ndr_unpack

    found = sam.search(BASE, ldb.SCOPE_SUBTREE, "(sAMAccountName=%s)" % ldb.binary_encode(account), ["objectSid"])
    return str(ndr_unpack(security.dom_sid, found[0]["objectSid"][0]))


def allow(sam, account, dn, ace):
    from samba.sd_utils import SDUtils

    SDUtils(sam).dacl_add_ace(dn, ace.replace("{sid}", sid(sam, account)))


def sddl(sam, dn, text):
    from samba.sd_utils import SDUtils

    text = re.sub(r"\{([^}]+)\}", lambda found: sid(sam, found.group(1)), text)
    SDUtils(sam).modify_sd_on_dn(dn, text, ["sd_flags:1:4"])


def show(sam, dn):
    import ldb

    try:
        found = sam.search(dn, ldb.SCOPE_BASE, "(objectClass=*)", ["*", "msDS-KeyVersionNumber"])
    except ldb.LdbError as error:
        if error.args[0] == ldb.ERR_NO_SUCH_OBJECT:
            return
        raise
    # Lines that are not folded.
    for name in found[0]:
        for value in found[0].get(name, default=[]) if name != "dn" else [str(found[0].dn)]:
            print("%s: %s" % (name, value if isinstance(value, str) else value.decode("utf-8", "replace")))


def join(conf, address, name):
    """What Add-Computer with UnsecuredJoin and PasswordPass says on the wire: a secure channel with the password that was passed
    (MS-NRPC 3.5.4.4.2), and then another password (MS-NRPC 3.5.4.4.5)."""
    from samba import NTSTATUSError
    from samba.credentials import DONT_USE_KERBEROS, Credentials
    from samba.dcerpc import netlogon
    from samba.dcerpc.misc import SEC_CHAN_WKSTA
    from samba.param import LoadParm

    old, new = sys.stdin.read().splitlines()
    lp = LoadParm()
    lp.load(conf)
    credentials = Credentials()
    credentials.guess(lp)
    credentials.set_domain(DOMAIN)
    credentials.set_realm(REALM)
    credentials.set_username(name + "$")
    credentials.set_workstation(name)
    credentials.set_password(old)
    credentials.set_kerberos_state(DONT_USE_KERBEROS)
    credentials.set_secure_channel_type(SEC_CHAN_WKSTA)
    try:
        channel = netlogon.netlogon("ncacn_ip_tcp:%s[schannel,seal]" % address, lp, credentials)
        proof = credentials.new_client_authenticator()
        current = netlogon.netr_Authenticator()
        current.cred.data = list(proof["credential"])
        current.timestamp = proof["timestamp"]
        text = new.encode("utf-16-le")
        sealed = netlogon.netr_CryptPassword()
        sealed.length = len(text)
        sealed.data = list(os.urandom(512 - len(text))) + list(text)
        credentials.encrypt_netr_crypt_password(sealed)
        channel.netr_ServerPasswordSet2(address, name + "$", SEC_CHAN_WKSTA, name, current, sealed)
    except NTSTATUSError as error:
        sys.exit("refused: 0x%08x %s" % (error.args[0] & 0xFFFFFFFF, error.args[1]))


def main(command, *arguments):
    if command == "provision":
        provision(*arguments)
    elif command == "add":
        owned(*arguments).add_ldif(sys.stdin.read())
    elif command == "modify":
        owned(*arguments).modify_ldif(sys.stdin.read())
    elif command == "allow":
        conf, account, dn, ace = arguments
        allow(owned(conf), account, dn, ace)
    elif command == "sddl":
        conf, dn, text = arguments
        sddl(owned(conf), dn, text)
    elif command == "move":
        conf, old, new = arguments
        owned(conf).rename(old, new)
    elif command == "show":
        conf, dn = arguments
        show(owned(conf), dn)
    elif command == "join":
        join(*arguments)
    else:
        sys.exit(__doc__)


main(*(sys.argv[1:] or ["help"]))
