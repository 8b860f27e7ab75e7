//! Whatever of a virtual machine the settings have no field for, in the words of the Compute API.
//!
//! An operator's object is merged into the body of the request as RFC 7396 says: objects member by member, lists and simple
//! values replace, `null` takes away. What must stay as we made it cannot be overridden; disks and network interfaces that an
//! override brings get our names and go with their machine.

use kasm_autoscale_core::fields::{JsonObject, Problem};
use kasm_autoscale_core::id::ConfigId;
use serde_json::{Value, json};

use super::names::VmName;

/// Members of the body that only we may set, as JSON pointers, each with the reason.
const OURS: [(&str, &str); 16] = [
    ("/id", "it is Azure's to give"),
    ("/location", "it is the provider's field region"),
    ("/name", "our names are how machines are found again"),
    ("/resources", "it is Azure's to give"),
    ("/tags", "our tags are how machines are found again; use the field tags"),
    ("/type", "it is Azure's to give"),
    (
        "/properties/networkProfile/networkApiVersion",
        "it goes with the network interfaces that are made with the machine",
    ),
    ("/properties/networkProfile/networkInterfaces", "one interface serves one machine, and nobody deletes it"),
    ("/properties/osProfile/adminPassword", "it is the provider's field admin_password or admin_password_key"),
    ("/properties/osProfile/adminUsername", "use the field admin_username"),
    ("/properties/osProfile/computerName", "it is the server's name"),
    ("/properties/osProfile/customData", "it is the startup script"),
    ("/properties/storageProfile/osDisk/createOption", "the disk is made from the image"),
    ("/properties/storageProfile/osDisk/deleteOption", "nobody deletes what a deleted machine leaves behind"),
    ("/properties/storageProfile/osDisk/name", "our names are how disks are found again"),
    ("/properties/virtualMachineScaleSet", "a scale set would make and delete machines too"),
];

/// Changes to the body of a request for a machine.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Overrides(JsonObject);

impl Overrides {
    /// Reads the field `overrides`. Every mistake goes into `problems`.
    pub(super) fn read(object: &JsonObject, problems: &mut Vec<Problem>) -> Self {
        let whole = Value::Object(object.clone());
        for (pointer, reason) in OURS {
            let path = pointer.replace('/', ".");
            if whole.pointer(pointer).is_some() {
                let allowed = format!("cannot be overridden: {reason}");
                problems.push(Problem::new(format!("overrides{path}"), "a value", allowed));
            }
            // Taking away what is around it, or putting a value there, would do the same.
            let mut around = pointer;
            while let Some((outer, _)) = around.rsplit_once('/').filter(|(outer, _)| !outer.is_empty()) {
                around = outer;
                let broken = whole.pointer(outer).is_some_and(|value| !value.is_object());
                let path = format!("overrides{}", outer.replace('/', "."));
                if broken && !problems.iter().any(|problem| problem.path == path) {
                    problems.push(Problem::new(path, "no object", "an object: parts of it are ours"));
                }
            }
        }
        for (pointer, option) in [
            ("/properties/storageProfile/dataDisks", "/deleteOption"),
            ("/properties/networkProfile/networkInterfaceConfigurations", "/properties/deleteOption"),
        ] {
            let items = whole.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
            for (index, item) in items.enumerate() {
                let path = format!("overrides{}[{index}]", pointer.replace('/', "."));
                if !item.is_object() {
                    problems.push(Problem::new(&path, "no object", "an object"));
                }
                if item.pointer(option).is_some_and(|option| option != "Delete") {
                    let allowed = "\"Delete\" or nothing: nobody deletes what a deleted machine leaves behind";
                    problems.push(Problem::new(format!("{path}{}", option.replace('/', ".")), "another word", allowed));
                }
            }
        }
        Self(object.clone())
    }

    /// Lays the changes over a body.
    pub(super) fn apply(&self, body: &mut Value, vm: &VmName, config: ConfigId) {
        merge(body, &Value::Object(self.0.clone()));
        let items = |body: &mut Value, pointer: &str, change: &mut dyn FnMut(usize, &mut JsonObject)| {
            let items = body.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten();
            items.filter_map(Value::as_object_mut).enumerate().for_each(|(index, item)| change(index, item));
        };
        items(body, "/properties/storageProfile/dataDisks", &mut |index, disk| {
            // A disk that was there before belongs to somebody else, and one machine after another may have it.
            if disk.get("createOption") != Some(&json!("Attach")) {
                disk.insert("name".to_owned(), json!(vm.part(config, &format!("data{index}"))));
                disk.insert("deleteOption".to_owned(), json!("Delete"));
            }
        });
        items(body, "/properties/networkProfile/networkInterfaceConfigurations", &mut |index, interface| {
            let what = if index == 0 { "nic".to_owned() } else { format!("nic{index}") };
            interface.insert("name".to_owned(), json!(vm.part(config, &what)));
            let properties = interface.entry("properties").or_insert_with(|| json!({}));
            delete_with_machine(properties);
            let addresses = properties.get_mut("ipConfigurations").and_then(Value::as_array_mut).into_iter().flatten();
            for (number, address) in addresses.enumerate() {
                if let Some(public) = address.pointer_mut("/properties/publicIPAddressConfiguration") {
                    let what = if index + number == 0 { "pip".to_owned() } else { format!("pip{index}x{number}") };
                    set(public, "name", json!(vm.part(config, &what)));
                    if let Some(public) = public.as_object_mut() {
                        delete_with_machine(public.entry("properties").or_insert_with(|| json!({})));
                    }
                }
            }
        });
    }
}

fn delete_with_machine(properties: &mut Value) {
    set(properties, "deleteOption", json!("Delete"));
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}

/// RFC 7396, "JSON Merge Patch".
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(target) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use kasm_autoscale_core::id::{PoolId, ServerId, ServerKey};

    use super::*;

    fn read(value: &Value) -> (Overrides, Vec<String>) {
        let mut problems = Vec::new();
        let overrides = Overrides::read(value.as_object().expect("an object"), &mut problems);
        (overrides, problems.iter().map(ToString::to_string).collect())
    }

    fn vm() -> VmName {
        VmName::of(&ServerKey { pool: PoolId::from_bytes([1; 16]), server: ServerId::new(1) })
    }

    /// The examples of RFC 7396, appendix A, whose targets are objects.
    #[test]
    fn objects_merge_as_the_standard_says() {
        let rows = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (mut target, patch, expected) in rows {
            merge(&mut target, &patch);
            assert_eq!(target, expected, "{patch}");
        }
    }

    #[test]
    fn what_is_ours_cannot_be_overridden() {
        for (pointer, _) in OURS {
            let mut value = json!("canary-7");
            for name in pointer.rsplit('/').filter(|name| !name.is_empty()) {
                value = json!({ name: value });
            }
            let (_, problems) = read(&value);
            let path = pointer.replace('/', ".");
            assert!(problems[0].starts_with(&format!("overrides{path}: given a value; cannot be")), "{problems:?}");
            assert!(!problems.concat().contains("canary-7"));
        }
        for value in [
            json!({"properties": null}),
            json!({"properties": {"osProfile": null}}),
            json!({"properties": {"networkProfile": []}}),
            json!({"properties": {"storageProfile": {"osDisk": "none"}}}),
        ] {
            let (_, problems) = read(&value);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].ends_with("given no object; an object: parts of it are ours"), "{problems:?}");
        }
    }

    #[test]
    fn what_an_override_brings_is_named_and_goes_with_the_machine() {
        let profile = json!({"properties": {
            "storageProfile": {"dataDisks": [
                {"lun": 0, "createOption": "Empty", "diskSizeGB": 8, "name": "mine"},
                {"lun": 1, "createOption": "Attach", "managedDisk": {"id": "/disks/d"}}]},
            "networkProfile": {"networkInterfaceConfigurations": [{"name": "mine", "properties": {"ipConfigurations": [
                {"name": "a", "properties": {"publicIPAddressConfiguration": {"name": "mine"}}}]}}, {"name": "second"}]},
        }});
        let (overrides, problems) = read(&profile);
        assert_eq!(problems, [""; 0]);
        let mut body = json!({});
        overrides.apply(&mut body, &vm(), ConfigId::new(3));
        let at = |pointer: &str| body.pointer(pointer).cloned().unwrap_or_default();
        let name = |what: &str| json!(vm().part(ConfigId::new(3), what));
        let disks = "/properties/storageProfile/dataDisks";
        assert_eq!(
            (at(&format!("{disks}/0/name")), at(&format!("{disks}/0/deleteOption"))),
            (name("data0"), json!("Delete"))
        );
        assert_eq!(at(&format!("{disks}/1/deleteOption")), Value::Null);
        let nics = "/properties/networkProfile/networkInterfaceConfigurations";
        assert_eq!((at(&format!("{nics}/0/name")), at(&format!("{nics}/1/name"))), (name("nic"), name("nic1")));
        assert_eq!(at(&format!("{nics}/1/properties/deleteOption")), json!("Delete"));
        let public = format!("{nics}/0/properties/ipConfigurations/0/properties/publicIPAddressConfiguration");
        assert_eq!(
            (at(&format!("{public}/name")), at(&format!("{public}/properties/deleteOption"))),
            (name("pip"), json!("Delete"))
        );
        let kept = json!({"properties": {"storageProfile": {"dataDisks": [{"deleteOption": "Detach"}, 7]}}});
        let (_, problems) = read(&kept);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
