//! Joining a domain: what a config says of it.

use alloc::format;
use alloc::string::String;

use serde_json::Value;

use crate::fields::{Fields, Problem, shown};
use crate::id::DirectoryName;

/// The longest a distinguished name may be here, in characters.
const OU_CHARS_MAX: usize = 1024;

/// How the servers of a config join an Active Directory domain: a computer object is made for each before its machine is,
/// and removed after it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DomainJoin {
    /// The directory, one of the host's LDAP configs. Its account makes and removes the computer objects.
    pub directory: DirectoryName,
    /// The distinguished name of the organisational unit they lie in, as in `OU=Computers,DC=example,DC=local`. Whether it is
    /// one is for [`Directory::check`](crate::ports::Directory::check) to say.
    pub ou: String,
    /// Whether whatever lies below a computer object is removed with it. If not, a computer object with children stays, and
    /// its server with it, until an operator has removed them or has changed this.
    pub recursive_cleanup: bool,
}

pub(super) fn read(fields: &mut Fields<'_>) -> Option<DomainJoin> {
    const OU: &str = "ad_computer_ou_dn";
    let given = fields.value("ad_directory").is_some();
    let directory: Option<DirectoryName> = fields.name("ad_directory");
    let ou = fields.text(OU).filter(|text| !text.is_empty());
    let recursive = fields.boolean("ad_recursive_cleanup");
    if let Some(text) = &ou
        && (text.trim().is_empty() || text.chars().any(char::is_control) || text.chars().count() > OU_CHARS_MAX)
    {
        let allowed = format!(
            "the distinguished name of an organisational unit, as in \"OU=Computers,DC=example,DC=local\": at most {OU_CHARS_MAX} characters, no control characters"
        );
        fields.problem(Problem::new(OU, shown(&Value::String(text.clone())), allowed));
    }
    if given {
        let what = "the organisational unit for computer objects, as in \"OU=Computers,DC=example,DC=local\", since ad_directory is set";
        let ou = fields.require(OU, ou, what);
        return Some(DomainJoin { directory: directory?, ou: ou?, recursive_cleanup: recursive.unwrap_or(false) });
    }
    let alone =
        "of use only with ad_directory, the LDAP config that makes computer objects; set that too, or leave this out";
    if let Some(text) = ou {
        fields.problem(Problem::new(OU, shown(&Value::String(text)), alone));
    }
    if recursive == Some(true) {
        fields.problem(Problem::new("ad_recursive_cleanup", "true", alone));
    }
    None
}
