"""Drives the stand-in for Azure with Microsoft's own SDK: what that understands, Azure says too.

Called with the stand-in's address, its certificate, subscription, group and region. Ends with an error at the first surprise.
"""

import sys

from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.network import NetworkManagementClient

url, ca, subscription, group, region, token = sys.argv[1:]


class Credential:
    def get_token(self, *scopes, **_):
        return AccessToken(token, 4102444800)


options = dict(base_url=url, connection_verify=ca, credential_scopes=[f"{url}/.default"], polling_interval=0, retry_total=0)
# Each in the newest version that it knows; what is asked for is the same in ours.
compute = ComputeManagementClient(Credential(), subscription, **options)
network = NetworkManagementClient(Credential(), subscription, **options)
machines, disks = compute.virtual_machines, compute.disks


def body(name, public=False):
    address = {"name": "primary", "properties": {"primary": True, "subnet": {"id": "/subnets/pool"}}}
    if public:
        address["properties"]["publicIPAddressConfiguration"] = {
            "name": f"{name}-pip",
            "sku": {"name": "Standard", "tier": "Regional"},
            "properties": {"deleteOption": "Delete", "publicIPAllocationMethod": "Static"},
        }
    nic = {"name": f"{name}-nic", "properties": {"primary": True, "deleteOption": "Delete", "ipConfigurations": [address]}}
    image = {"publisher": "MicrosoftWindowsServer", "offer": "WindowsServer", "sku": "2022-datacenter-g2", "version": "latest"}
    return {
        "location": region,
        "tags": {"who": "sdk"},
        "properties": {
            "hardwareProfile": {"vmSize": "Standard_D4s_v5"},
            "storageProfile": {
                "imageReference": image,
                "osDisk": {"name": f"{name}-osdisk", "createOption": "FromImage", "deleteOption": "Delete"},
            },
            "osProfile": {"computerName": name, "adminUsername": "desk", "adminPassword": "Same-1234", "customData": "ZWNobw=="},
            "networkProfile": {"networkApiVersion": "2020-11-01", "networkInterfaceConfigurations": [nic]},
        },
    }


def check(holds, what):
    if not holds:
        sys.exit(f"not so: {what}")
    print(f"ok: {what}")


def refused(what, code, call):
    try:
        call()
    except HttpResponseError as error:
        given = error.error.code if error.error else str(error)
        check(given == code, f"{what} is refused with {code}" + ("" if given == code else f", not {given}"))
        return error
    sys.exit(f"not refused: {what}")


# Create: polled to its end by the SDK, final body from the machine itself.
poller = machines.begin_create_or_update(group, "sdk-1", body("sdk-1", public=True), headers={"If-None-Match": "*"})
check(not poller.done(), "a create is not done when it is accepted")
made = poller.result()
check(made.name == "sdk-1" and made.properties.provisioning_state == "Succeeded", "a create ends in a machine that is made")
check(made.properties.os_profile.admin_password is None and made.tags == {"who": "sdk"}, "passwords are not told, tags are")
nic_id = made.properties.network_profile.network_interfaces[0].id
refused(
    "a second create",
    "PreconditionFailed",
    lambda: machines.begin_create_or_update(group, "sdk-1", body("sdk-1"), headers={"If-None-Match": "*"}),
)
changed = body("sdk-1")
changed["properties"]["osProfile"]["customData"] = "b3RoZXI="
refused("other custom data", "PropertyChangeNotAllowed", lambda: machines.begin_create_or_update(group, "sdk-1", changed))
bad = body("sdk-2")
del bad["location"]
refused("a body without a place", "InvalidParameter", lambda: machines.begin_create_or_update(group, "sdk-2", bad))

# Get, with the view of the running machine; the network interface and its addresses.
view = machines.get(group, "SDK-1", expand="instanceView").properties.instance_view
check([status.code for status in view.statuses][-1] == "PowerState/running", "the instance view tells the power state")
check(machines.get(group, "sdk-1").properties.instance_view is None, "the instance view is told only when it is asked for")
nic = network.network_interfaces.get(group, nic_id.split("/")[-1])
check(nic.virtual_machine.id.lower() == made.id.lower(), "an interface tells its machine")
check(nic.ip_configurations[0].private_ip_address == "127.0.0.1", "an interface tells its private address")
public = network.public_ip_addresses.get(group, nic.ip_configurations[0].public_ip_address.id.split("/")[-1])
check(public.ip_address == "127.0.0.2", "a public address tells itself")
check(disks.get(group, "sdk-1-osdisk").managed_by.lower() == made.id.lower(), "a disk tells its machine")
try:
    machines.get(group, "sdk-9")
    sys.exit("not absent: sdk-9")
except ResourceNotFoundError as error:
    check(error.error.code == "ResourceNotFound", "a machine that is not there is not found")

# An extension, as a resource below the machine.
extension = {
    "location": region,
    "properties": {
        "publisher": "Microsoft.Compute",
        "type": "CustomScriptExtension",
        "typeHandlerVersion": "1.10",
        "autoUpgradeMinorVersion": True,
        "settings": {},
        "protectedSettings": {"commandToExecute": "whoami"},
    },
}
put = compute.virtual_machine_extensions.begin_create_or_update
refused("an extension of nothing", "ParentResourceNotFound", lambda: put(group, "sdk-9", "script", extension))
put(group, "sdk-1", "script", extension).wait()
children = machines.get(group, "sdk-1").resources
check([child.name for child in children] == ["script"], "a machine shows its extensions")
check(children[0].properties.protected_settings is None, "protected settings are not told")

# Lists: pages are followed by the SDK.
for number in range(2, 6):
    machines.begin_create_or_update(group, f"sdk-{number}", body(f"sdk-{number}")).result()
names = [machine.name for machine in machines.list(group)]
check(sorted(names) == [f"sdk-{number}" for number in range(1, 6)], "a list has all machines, page by page")
states = [machine.properties.instance_view.statuses[-1].code for machine in machines.list_all(status_only="true")]
check(states == ["PowerState/running"] * 5, "the list of the subscription has all power states")
check(len(list(network.network_interfaces.list(group))) == 5, "a list has all interfaces")
check(len(list(disks.list_by_resource_group(group))) == 5, "a list has all disks")

# What fails after it was accepted. The test that runs this has told the stand-in to fail the next one.
print("fail-next", flush=True)
sys.stdin.readline()
poller = machines.begin_create_or_update(group, "sdk-6", body("sdk-6"))
error = refused("a machine without room", "AllocationFailed", poller.result)
check(poller.status() == "Failed", "the operation has failed")
check(machines.get(group, "sdk-6").properties.provisioning_state == "Failed", "a machine that failed is still shown")
view = machines.get(group, "sdk-6", expand="instanceView").properties.instance_view
check(view.statuses[0].code == "ProvisioningState/failed/AllocationFailed", "its instance view tells why")

# Delete: the machine with its parts, twice; and parts that are held.
refused("an interface in use", "NicInUse", lambda: network.network_interfaces.begin_delete(group, nic.name))
refused("an address in use", "PublicIPAddressCannotBeDeleted", lambda: network.public_ip_addresses.begin_delete(group, public.name))
refused("a disk in use", "OperationNotAllowed", lambda: disks.begin_delete(group, "sdk-1-osdisk"))
for number in range(1, 7):
    machines.begin_delete(group, f"sdk-{number}", force_deletion=True).result()
machines.begin_delete(group, "sdk-1").result()
check(list(machines.list(group)) == [], "all machines are gone")
check(list(disks.list_by_resource_group(group)) == [], "their disks are gone with them")
check(list(network.public_ip_addresses.list(group)) == [], "their addresses are gone with them")
left = [one.name for one in network.network_interfaces.list(group)]
check(len(left) == 1 and left[0].startswith("sdk-6-nic"), "the interface of the machine that failed is left")
refused("an interface that is reserved", "NicReservedForAnotherVm", lambda: network.network_interfaces.begin_delete(group, left[0]))
print("pass-time", flush=True)
sys.stdin.readline()
network.network_interfaces.begin_delete(group, left[0]).result()
check(list(network.network_interfaces.list(group)) == [], "later it can be deleted")
print("done", flush=True)
