//! From a command to its outcome: the same code for every host, and for the simulator.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use secrecy::{ExposeSecret, SecretString};

use crate::command::{Action, Command, CreateMachine, EnrollComputer, Outcome};
use crate::config::{ConfigSpec, ConnectionPassword, DomainJoin, Problem};
use crate::id::{DirectoryName, MachineName, PoolId, ProviderName};
use crate::ports::{
    Certainty, Computer, Directories, DirectoryError, DirectoryErrorKind, ErrorKind, Marker, Prober, ProviderError,
    Providers, Secrets, ServerSpec,
};
use crate::script::{Script, Variable};
use crate::time::Timestamp;
use crate::token::{DeploymentKey, checkin_token, join_password};

/// The one try a server has at joining its domain: another try is another server.
const JOIN_ATTEMPT: u32 = 0;

/// What commands are carried out with.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The providers that are set up.
    pub providers: &'a dyn Providers,
    /// The directories that are set up.
    pub directories: &'a dyn Directories,
    /// Probes connection ports.
    pub prober: &'a dyn Prober,
    /// Looks secrets up.
    pub secrets: &'a dyn Secrets,
    /// Signs check-in tokens, and makes the passwords with which machines join a domain.
    pub key: &'a DeploymentKey,
}

impl core::fmt::Debug for Ports<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Ports")
    }
}

/// Carries a command of this pool out. It does not limit its time: the host does, by [`Command::timeout`], and reports
/// [`Outcome::Lost`] when it is over.
pub async fn execute(pool: PoolId, command: &Command, ports: Ports<'_>) -> Outcome {
    let provider = |name: &ProviderName| ports.providers.provider(name).ok_or_else(|| no_provider(name));
    let directory = |name: &DirectoryName| ports.directories.directory(name).ok_or_else(|| no_directory(name));
    match &command.action {
        Action::Create(create) => Outcome::Progress(match provider(&create.spec.provider) {
            Ok(provider) => match server_spec(create, provider.describe().kind, ports) {
                Ok(spec) => provider.create(&spec).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }),
        Action::Poll { provider: name, op } => Outcome::Progress(match provider(name) {
            Ok(provider) => provider.poll(op).await,
            Err(error) => Err(error),
        }),
        Action::Find { provider: name, server } => Outcome::Found(match provider(name) {
            Ok(provider) => provider.find(server).await,
            Err(error) => Err(error),
        }),
        Action::List { provider: name } => Outcome::Listed(match provider(name) {
            Ok(provider) => provider.list(&pool).await,
            Err(error) => Err(error),
        }),
        Action::Delete { provider: name, machine } => Outcome::Progress(match provider(name) {
            Ok(provider) => provider.delete(machine).await,
            Err(error) => Err(error),
        }),
        Action::Probe { target } => Outcome::Probed(ports.prober.probe(target).await),
        Action::Enroll(enroll) => Outcome::Enrolled(match directory(&enroll.directory) {
            Ok(directory) => {
                let password = join_password(ports.key, &enroll.server, JOIN_ATTEMPT);
                directory.ensure_computer(&computer(enroll), &password).await
            }
            Err(error) => Err(error),
        }),
        Action::FindComputer { directory: name, server } => Outcome::ComputerFound(match directory(name) {
            Ok(directory) => directory.find_computer(server).await,
            Err(error) => Err(error),
        }),
        Action::CheckJoin { directory: name, computer } => Outcome::JoinChecked(match directory(name) {
            Ok(directory) => directory.joined(computer).await,
            Err(error) => Err(error),
        }),
        Action::Unenroll { directory: name, computer, recursive } => Outcome::Unenrolled(match directory(name) {
            Ok(directory) => directory.delete_computer(computer, *recursive).await,
            Err(error) => Err(error),
        }),
        Action::ListComputers { directory: name } => Outcome::ComputersListed(match directory(name) {
            Ok(directory) => directory.list_computers(&pool).await,
            Err(error) => Err(error),
        }),
    }
}

fn no_provider(name: &ProviderName) -> ProviderError {
    ProviderError::new(
        ErrorKind::Invalid,
        Certainty::NotApplied,
        "ProviderMissing",
        &format!("there is no provider {name:?}"),
    )
}

fn no_directory(name: &DirectoryName) -> DirectoryError {
    DirectoryError::new(
        DirectoryErrorKind::Invalid,
        Certainty::NotApplied,
        "DirectoryMissing",
        &format!("there is no directory {:?}; it is the name of an LDAP config of the host", name.as_str()),
    )
}

/// The computer object that is asked for.
fn computer(enroll: &EnrollComputer) -> Computer {
    let server = enroll.server;
    Computer {
        server,
        marker: Marker {
            deployment: enroll.deployment,
            pool: server.pool,
            config: enroll.config,
            server: server.uuid(),
        },
        name: enroll.name.clone(),
        ou: enroll.ou.clone(),
    }
}

fn invalid(code: &str, message: &str) -> ProviderError {
    ProviderError::new(ErrorKind::Invalid, Certainty::NotApplied, code, message)
}

/// The request for a machine: the same bytes whenever it is made from the same row and the same secrets.
fn server_spec(create: &CreateMachine, kind: &str, ports: Ports<'_>) -> Result<ServerSpec, ProviderError> {
    let name = computer_name(create)?;
    let user_data = match &create.spec.startup_script {
        Some(script) => Some(rendered(script, create, kind, ports.directories, ports.secrets, ports.key)?),
        None => None,
    };
    let server = create.server;
    Ok(ServerSpec {
        server,
        marker: Marker {
            deployment: create.deployment,
            pool: server.pool,
            config: create.config,
            server: server.uuid(),
        },
        name,
        token: server.uuid(),
        machine: create.spec.machine.clone(),
        user_data,
    })
}

fn computer_name(create: &CreateMachine) -> Result<MachineName, ProviderError> {
    // The pool makes no server that has no name, so this is only for hosts that make commands of their own.
    let none = || invalid("NameTooLong", "the server's number does not fit into the config's server_name_pattern");
    create.spec.server_name_pattern.name_of(&create.server).ok_or_else(none)
}

fn rendered(
    script: &Script,
    create: &CreateMachine,
    kind: &str,
    directories: &dyn Directories,
    secrets: &dyn Secrets,
    key: &DeploymentKey,
) -> Result<SecretString, ProviderError> {
    let spec = &create.spec;
    let mut values: BTreeMap<Variable, SecretString> = BTreeMap::new();
    let mut set =
        |variable, value: Option<String>| values.extend(value.map(|text| (variable, SecretString::from(text))));
    set(Variable::ServerId, Some(create.server.uuid()));
    set(Variable::ServerHostname, Some(computer_name(create)?.to_string()));
    set(Variable::ProviderName, Some(kind.into()));
    set(Variable::UpstreamAuthAddress, spec.upstream_auth_address.clone());
    set(Variable::ConnectionUsername, spec.connection.username.clone());
    set(Variable::CheckinJwt, Some(checkin_token(key, &create.server, create.checkin_expires_at)));
    let uses = |variable| script.variables().contains(&variable);
    if uses(Variable::ConnectionPassword)
        && let ConnectionPassword::Secret(name) = &spec.connection.password
    {
        let secret =
            secrets.secret(name).ok_or_else(|| invalid("SecretMissing", &format!("there is no secret {name:?}")))?;
        values.insert(Variable::ConnectionPassword, secret);
    }
    if let Some(join) = &spec.domain_join {
        if uses(Variable::Domain) {
            let directory = directories.directory(&join.directory).ok_or_else(|| {
                invalid("DirectoryMissing", &format!("there is no directory {:?}", join.directory.as_str()))
            })?;
            values.insert(Variable::Domain, SecretString::from(directory.describe().domain));
        }
        if uses(Variable::AdJoinCredential) {
            let password = join_password(key, &create.server, JOIN_ATTEMPT);
            values.insert(Variable::AdJoinCredential, SecretString::from(password.expose_secret()));
        }
    }
    script.render(&values).map_err(|error| invalid("StartupScript", &error.to_string()))
}

/// Every mistake in a config that only its provider, its directory and the host's secrets can show: its machine settings,
/// its organisational unit, the size of its startup script, values that cannot stand in it, secrets that are not there. To be
/// called before a config is set; makes no call.
pub fn check_config(
    spec: &ConfigSpec,
    deployment_key: &DeploymentKey,
    providers: &dyn Providers,
    directories: &dyn Directories,
    secrets: &dyn Secrets,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let ConnectionPassword::Secret(name) = &spec.connection.password
        && secrets.secret(name).is_none()
    {
        problems.push(Problem::new(
            "connection_password",
            format!("secret {name:?}"),
            "the host keeps no secret of this name",
        ));
    }
    if let Some(join) = &spec.domain_join {
        problems.extend(check_join(join, directories));
    }
    let Some(provider) = providers.provider(&spec.provider) else {
        problems.push(Problem::new(
            "provider",
            format!("{:?}", spec.provider.as_str()),
            "the host has no provider of this name",
        ));
        return problems;
    };
    let mut bytes = 0;
    if let Some(script) = spec.startup_script.as_ref().filter(|_| problems.is_empty()) {
        // A server with the longest number there is. No other value differs from server to server in length.
        let create = sample(spec);
        match rendered(script, &create, provider.describe().kind, directories, secrets, deployment_key) {
            Ok(text) => bytes = text.expose_secret().len(),
            Err(error) => {
                problems.push(Problem::new("startup_script", "a value that cannot stand in it", error.message))
            }
        }
    }
    let of_machine =
        |problem: Problem| if problem.path == "startup_script" { problem } else { problem.below("machine") };
    problems.extend(provider.check(&spec.machine, bytes).into_iter().map(of_machine));
    problems
}

/// Every mistake in what a config says of the domain its machines join.
fn check_join(join: &DomainJoin, directories: &dyn Directories) -> Vec<Problem> {
    match directories.directory(&join.directory) {
        Some(directory) => {
            directory.check(&join.ou).into_iter().map(|problem| problem.below("ad_computer_ou_dn")).collect()
        }
        None => vec![Problem::new(
            "ad_directory",
            format!("{:?}", join.directory.as_str()),
            "the host has no directory of this name; it is the name of an LDAP config",
        )],
    }
}

fn sample(spec: &ConfigSpec) -> CreateMachine {
    use crate::id::{ConfigId, DeploymentId, ServerId, ServerKey};
    let server =
        ServerKey { pool: PoolId::from_bytes([0; 16]), server: ServerId::new(spec.server_name_pattern.last_serial()) };
    CreateMachine {
        deployment: DeploymentId::from_bytes([0; 16]),
        server,
        config: ConfigId::new(u32::MAX),
        spec: spec.clone().into(),
        checkin_expires_at: Timestamp::from_secs(9_999_999_999),
    }
}
