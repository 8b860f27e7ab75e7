//! How to connect to a session: the one place of the API where a secret may leave.

use std::fmt;

use kasm_autoscale_core::config::{Connection, ConnectionPassword, JsonObject, SSO_USERNAME};
use kasm_autoscale_core::id::UserName;
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::ports::{Address, Secrets};
use kasm_autoscale_core::session::Session;
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::connect::sso::SsoDomain;
use crate::connect::{Credentials, Target};
use crate::users::Login;

/// How to connect to a session.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConnectionView {
    /// `rdp`, `vnc`, `ssh` or `kasmvnc`.
    pub r#type: String,
    /// IP address or host name.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// Whose password it takes: `static` (the one given here), `sso` (the user's own) or `prompt` (the user is asked).
    pub credentials: String,
    /// The name to log in with; none if the user is asked.
    pub username: Option<String>,
    /// The password: a static one that the host keeps, or for a user his own.
    #[schema(value_type = Option<String>, format = Password)]
    pub password: Option<Revealed>,
    /// Further settings of the config, as they are.
    #[schema(value_type = Object)]
    pub info: JsonObject,
}

/// A secret on its way to somebody who may see it. It is written into the answer and nowhere else.
pub struct Revealed(pub(super) SecretString);

impl fmt::Debug for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[not shown]")
    }
}

impl Serialize for Revealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // No answer with it leaves before that is in the audit log.
        super::recorded::secret_shown();
        serializer.serialize_str(self.0.expose_secret())
    }
}

/// An active session's server, as the pool knows it: without secrets.
#[derive(Debug)]
pub(super) struct Open {
    connection: Connection,
    address: Option<Address>,
}

/// What is needed to connect to a session, if it is on a server.
pub(super) fn opened(pool: &Pool, session: &Session) -> Option<Open> {
    let server = pool.server(session.server()?)?;
    Some(Open { connection: pool.born_with(server).connection.clone(), address: pool.address(server) })
}

/// Through whose eyes a session is seen.
#[derive(Clone, Copy, Debug)]
pub(super) enum Eyes<'a> {
    /// Those of somebody who is not shown how to connect.
    Outside,
    /// Those of a broker, who knows no user's own password.
    Broker,
    /// Those of its user, who has logged in, with the form of name that the workspace wants.
    Own(&'a Login, &'a SsoDomain),
}

impl Open {
    /// With the user's name and the password in their places. `None` for those who are not shown it.
    pub(super) fn target(self, user: &UserName, eyes: Eyes<'_>, secrets: &dyn Secrets) -> Option<Target> {
        let Self { connection, address } = self;
        let (sso_username, sso_cred) = match eyes {
            Eyes::Outside => return None,
            Eyes::Broker => (user.to_string(), None),
            Eyes::Own(login, sso) => (sso.name_of(user.as_str()), Some(login.password().clone())),
        };
        let (credentials, password) = match &connection.password {
            ConnectionPassword::Prompt => (Credentials::Prompt, None),
            ConnectionPassword::SsoCred => (Credentials::Sso, sso_cred),
            ConnectionPassword::Secret(name) => {
                let secret = secrets.secret(name);
                if secret.is_none() {
                    tracing::error!(secret = %name, "a connection password is no longer kept; its users cannot log in");
                }
                (Credentials::Static, secret)
            }
        };
        let (host, port) = address.map_or((None, None), |address| (Some(address.host), address.port));
        let username = connection.username.map(|name| name.replace(SSO_USERNAME, &sso_username));
        Some(Target { kind: connection.kind, host, port, credentials, username, password, info: connection.info })
    }
}

impl From<Target> for ConnectionView {
    fn from(target: Target) -> Self {
        Self {
            r#type: target.kind.as_str().into(),
            host: target.host,
            port: target.port,
            credentials: target.credentials.as_str().into(),
            username: target.username,
            password: target.password.map(Revealed),
            info: target.info,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revealed_password_is_written_to_the_answer_alone() {
        let revealed = Revealed(SecretString::from("s3cret-marker".to_owned()));
        assert_eq!(serde_json::to_string(&revealed).unwrap(), "\"s3cret-marker\"");
        assert!(!format!("{revealed:?}").contains("s3cret"));
    }
}
