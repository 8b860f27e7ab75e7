//! Single sign-on: the form in which servers know a user's name.

use std::fmt;

use kasm_autoscale_core::fields::{Problem, shown};

/// How `{sso_username}` is made of the name a user has logged in with, `ann@corp.example`.
///
/// | `sso_domain` | what servers are given |
/// | --- | --- |
/// | none | `ann@corp.example` |
/// | `localhost` | `ann`: an account of the server itself |
/// | `CORP\` | `CORP\ann` |
/// | `other.example` | `ann@other.example` |
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum SsoDomain {
    /// The name as it is.
    #[default]
    AsIs,
    /// Without its domain.
    Strip,
    /// After this domain and a backslash.
    Prefix(String),
    /// Before an `@` and this domain.
    Suffix(String),
}

impl SsoDomain {
    /// Reads the field `sso_domain`.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let (domain, is_prefix) = text.strip_suffix('\\').map_or((text, false), |domain| (domain, true));
        let is_domain = (1..=255).contains(&domain.len())
            && domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        match (is_domain, is_prefix) {
            (false, _) => {
                let allowed = "\"localhost\" for accounts of the server itself, a domain with a backslash after it as in \
                               \"CORP\\\" for CORP\\user, or a domain as in \"corp.example\" for user@corp.example";
                Err(Problem::new("sso_domain", shown(&text.into()), allowed))
            }
            (true, false) if domain.eq_ignore_ascii_case("localhost") => Ok(Self::Strip),
            (true, true) => Ok(Self::Prefix(domain.into())),
            (true, false) => Ok(Self::Suffix(domain.into())),
        }
    }

    /// The name that servers are given for this user.
    pub fn name_of(&self, user: &str) -> String {
        let bare = bare(user);
        match self {
            Self::AsIs => user.to_owned(),
            Self::Strip => bare.to_owned(),
            Self::Prefix(domain) => format!("{domain}\\{bare}"),
            Self::Suffix(domain) => format!("{bare}@{domain}"),
        }
    }
}

impl fmt::Display for SsoDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsIs => Ok(()),
            Self::Strip => f.write_str("localhost"),
            Self::Prefix(domain) => write!(f, "{domain}\\"),
            Self::Suffix(domain) => f.write_str(domain),
        }
    }
}

/// A name without the domain before or after it. A name that is nothing but a domain stays as it is.
fn bare(user: &str) -> &str {
    let name = user.rsplit_once('\\').map_or(user, |(_, name)| name);
    let name = name.rsplit_once('@').map_or(name, |(name, _)| name);
    if name.is_empty() { user } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_is_put_where_the_setting_says() {
        for (setting, ann, odd) in [
            ("", "ann@corp.example", "CORP\\ann"),
            ("localhost", "ann", "ann"),
            ("LOCALHOST", "ann", "ann"),
            ("CORP\\", "CORP\\ann", "CORP\\ann"),
            ("localhost\\", "localhost\\ann", "localhost\\ann"),
            ("other.example", "ann@other.example", "ann@other.example"),
        ] {
            let domain =
                if setting.is_empty() { SsoDomain::default() } else { SsoDomain::parse(setting).expect("a domain") };
            assert_eq!(domain.name_of("ann@corp.example"), ann, "{setting}");
            assert_eq!(domain.name_of("CORP\\ann"), odd, "{setting}");
        }
        assert_eq!(SsoDomain::Strip.name_of("a@b@corp.example"), "a@b");
        assert_eq!(SsoDomain::Strip.name_of("@corp.example"), "@corp.example");
        assert_eq!(SsoDomain::Strip.name_of("CORP\\"), "CORP\\");
    }

    #[test]
    fn what_is_no_domain_is_refused_and_what_is_one_is_written_as_it_was_read() {
        for wrong in ["\\", "a b", "CORP\\ann", "a\\\\", "a@b", "{sso_username}", "a\r\n", &"a".repeat(256)] {
            let problem = SsoDomain::parse(wrong).expect_err(wrong);
            assert_eq!(problem.path, "sso_domain");
        }
        for right in ["localhost", "CORP\\", "corp.example"] {
            assert_eq!(SsoDomain::parse(right).expect("a domain").to_string(), right);
        }
    }
}
