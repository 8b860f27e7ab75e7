//! Who asks Azure, and where the secrets for that are kept: the fields `credentials`, `admin_password` and
//! `admin_password_key` of a provider of kind `azure`.

use kasm_autoscale_core::fields::{Fields, JsonObject, Problem};
use serde_json::Value;

use super::{AzureAccess, AzureIdentity, Loader};

const CREDENTIALS: &str = "a table with tenant_id, client_id and client_secret, or \"managed_identity\", \"workload_identity\" or \
                           \"developer_tools\"; a table with that word as its kind can say more";
const TENANT: &str = "the id or the domain of a tenant";
const CLIENT: &str = "the id of an application";

#[derive(Clone, Copy)]
enum Kind {
    Secret,
    Managed,
    Workload,
    Tools,
}

const KINDS: [(&str, Kind); 4] = [
    ("client_secret", Kind::Secret),
    ("managed_identity", Kind::Managed),
    ("workload_identity", Kind::Workload),
    ("developer_tools", Kind::Tools),
];

impl Loader<'_, '_> {
    /// Takes what is secret out of the settings of a provider.
    pub(super) fn read_azure(&mut self, path: &str, settings: &mut JsonObject) -> Option<AzureAccess> {
        let credentials = settings.remove("credentials").filter(|value| !value.is_null());
        let mut kept = |name: &str| {
            let value = settings.remove(name).filter(|value| !value.is_null())?;
            self.read_kept(&format!("{path}.{name}"), &value)
        };
        let (password, key) = (kept("admin_password"), kept("admin_password_key"));
        if password.is_some() && key.is_some() {
            let allowed =
                "one of admin_password (the same for all machines) and admin_password_key (each machine's own)";
            self.report.mistake(Problem::new(format!("{path}.admin_password"), "both", allowed));
        }
        let path = format!("{path}.credentials");
        let identity = match credentials {
            None => {
                self.report.mistake(Problem::new(path, "nothing", format!("required: {CREDENTIALS}")));
                None
            }
            Some(Value::Object(object)) => self.read_identity(&path, &object),
            Some(value) => {
                let of_kind = value.as_str().map(|kind| JsonObject::from_iter([("kind".to_owned(), kind.into())]));
                match of_kind.filter(|object| KINDS[1..].iter().any(|(kind, _)| object["kind"] == *kind)) {
                    Some(object) => self.read_identity(&path, &object),
                    None => {
                        self.report.mistake(Problem::new(path, "something else (not shown)", CREDENTIALS));
                        None
                    }
                }
            }
        };
        Some(AzureAccess { identity: identity?, admin_password: password, admin_password_key: key })
    }

    fn read_identity(&mut self, path: &str, object: &JsonObject) -> Option<AzureIdentity> {
        let mut fields = Fields::new(object);
        let kind = if object.contains_key("kind") { fields.choice("kind", &KINDS) } else { Some(Kind::Secret) };
        let Some(kind) = kind else {
            // Which fields it may have is not known, so only the kind is a mistake.
            let kind = fields.finish().into_iter().filter(|problem| problem.path == "kind");
            kind.for_each(|problem| self.report.mistake(problem.below(path)));
            return None;
        };
        match kind {
            Kind::Secret => {
                let tenant = fields.text("tenant_id").filter(|text| !text.is_empty());
                let tenant = fields.require("tenant_id", tenant, TENANT);
                let client = fields.text("client_id").filter(|text| !text.is_empty());
                let client = fields.require("client_id", client, CLIENT);
                let secret = fields.value("client_secret");
                let rule = "where it is kept, as in { env = \"AZURE_CLIENT_SECRET\" }";
                let secret = fields.require("client_secret", secret, rule);
                self.finish(fields, path);
                let secret = secret.and_then(|value| self.read_kept(&format!("{path}.client_secret"), value));
                Some(AzureIdentity::ClientSecret { tenant_id: tenant?, client_id: client?, client_secret: secret? })
            }
            Kind::Managed => {
                let client_id = fields.text("client_id");
                self.finish(fields, path);
                Some(AzureIdentity::ManagedIdentity { client_id })
            }
            Kind::Workload => {
                let (tenant_id, client_id) = (fields.text("tenant_id"), fields.text("client_id"));
                let token_file = fields.text("token_file").map(|file| self.folder.join(file));
                self.finish(fields, path);
                Some(AzureIdentity::WorkloadIdentity { tenant_id, client_id, token_file })
            }
            Kind::Tools => {
                self.finish(fields, path);
                Some(AzureIdentity::DeveloperTools)
            }
        }
    }
}
