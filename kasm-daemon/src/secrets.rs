//! Where secrets are kept, and how they are read.
//!
//! A secret itself never stands in the config file, which is copied, backed up and shown on screens. The file says where it
//! is: in an environment variable, in a file of its own, or among the credentials that systemd hands to a service. Secrets
//! are read once at start and again at each reload; messages and `Debug` name the place, never the value.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use kasm_autoscale_core::fields::{Problem, nearest, shown};
use kasm_autoscale_core::id::SecretName;
use kasm_autoscale_core::ports::Secrets;
use kasm_autoscale_core::token::DeploymentKey;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use thiserror::Error;

/// The longest a secret may be, in bytes.
pub const SECRET_BYTES_MAX: usize = 65_536;

/// The folder of the credentials that systemd hands to a service: systemd.exec(5), `LoadCredential=`.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// What is said wherever a secret is expected and something else is found.
const WHERE: &str = "say where the secret is kept: { file = \"PATH\" }, { env = \"VARIABLE\" } or { credential = \"NAME\" }; \
                     a secret itself does not belong in this file, which is copied, backed up and shown on screens";

/// Environment variables: those of the process, or a test's own.
///
/// A process cannot change its environment while it has threads, so tests bring one.
#[derive(Clone)]
pub struct Environment(Arc<Lookup>);

type Lookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        Self(Arc::new(|name| std::env::var_os(name)))
    }

    /// An environment of these variables and no others.
    pub fn of<K: Into<String>, V: Into<OsString>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let variables: BTreeMap<String, OsString> =
            variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self(Arc::new(move |name| variables.get(name).cloned()))
    }

    fn variable(&self, name: &str) -> Option<OsString> {
        (self.0)(name)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// Where a secret is kept.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum SecretSource {
    /// In this environment variable of the daemon.
    Env(String),
    /// In this file, which is readable by its owner alone.
    File(PathBuf),
    /// Among the credentials systemd hands to the service, under this name.
    Credential(String),
}

impl SecretSource {
    /// Reads `{ "env": VARIABLE }`, `{ "file": PATH }` or `{ "credential": NAME }`. A path that is not absolute starts at
    /// `folder`.
    ///
    /// # Errors
    /// What is wrong with it. What was given is never part of it, for it may be the secret itself.
    pub fn from_json(value: &Value, folder: &Path) -> Result<Self, Problem> {
        let Some(object) = value.as_object() else {
            return Err(Problem::new("", kind_of(value), WHERE));
        };
        let mut fields = object.iter();
        let (Some((key, value)), None) = (fields.next(), fields.next()) else {
            return Err(Problem::new("", format!("a table of {} fields", object.len()), WHERE));
        };
        let Some(text) = value.as_str().filter(|text| !text.is_empty()) else {
            return Err(Problem::new("", format!("{} = {}", known(key), kind_of(value)), WHERE));
        };
        match key.as_str() {
            "env" if is_variable(text) => Ok(Self::Env(text.into())),
            "env" => Err(Problem::new(
                "env",
                "a text that is no name of a variable (not shown)",
                "letters, digits and '_', the first one no digit",
            )),
            "file" if text.contains('\0') => Err(Problem::new("file", "a path with a null character", "a path")),
            "file" => Ok(Self::File(folder.join(text))),
            "credential" if text.parse::<SecretName>().is_ok() => Ok(Self::Credential(text.into())),
            "credential" => Err(Problem::new(
                "credential",
                "a text that is no name of a credential (not shown)",
                "1 to 63 letters, digits, '.', '_' or '-'",
            )),
            _ => Err(Problem::new("", format!("a table with the field {}", known(key)), WHERE)),
        }
    }

    /// The source as [`from_json`](Self::from_json) reads it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Env(name) => json!({ "env": name }),
            Self::File(path) => json!({ "file": path.display().to_string() }),
            Self::Credential(name) => json!({ "credential": name }),
        }
    }

    /// Reads the secret. Line ends after it do not belong to it, for most editors put one there.
    ///
    /// # Errors
    /// [`SecretError`] when it is not there, empty, longer than [`SECRET_BYTES_MAX`], not UTF-8, or when others could read its
    /// file.
    pub fn resolve(&self, environment: &Environment) -> Result<SecretString, SecretError> {
        let read = match self {
            Self::Env(name) => from_variable(environment, name),
            Self::File(path) => from_file(path, Readers::OwnerOnly),
            Self::Credential(name) => match environment.variable(CREDENTIALS_DIRECTORY) {
                // systemd guards that folder; the modes of the files in it are its own affair.
                Some(folder) => from_file(&Path::new(&folder).join(name), Readers::Any),
                None => Err(SecretFault::NoCredentials),
            },
        };
        read.map_err(|fault| SecretError { from: self.clone(), fault })
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Credential(name) => write!(f, "credential {name}"),
        }
    }
}

/// A field's name if it is close to one we know; anything else may be a secret in the wrong place.
fn known(key: &str) -> String {
    let near = nearest(key, &["file", "env", "credential", "secret", "value", "path"]);
    near.map_or_else(|| "(not shown)".into(), |_| shown(&Value::String(key.into())))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::String(text) if text.is_empty() => "an empty text",
        Value::String(_) => "a text (not shown)",
        Value::Array(_) => "a list (not shown)",
        Value::Object(_) => "a table (not shown)",
        _ => "a value (not shown)",
    }
}

fn is_variable(text: &str) -> bool {
    let starts = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    starts && text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A secret that could not be read. It never contains the secret.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{from}: {}", .fault.remedy(.from))]
pub struct SecretError {
    /// Where the secret should have been.
    pub from: SecretSource,
    /// What was found there.
    pub fault: SecretFault,
}

impl SecretError {
    /// What is wrong and how to mend it.
    pub fn remedy(&self) -> String {
        self.fault.remedy(&self.from)
    }
}

/// What is wrong with a secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SecretFault {
    /// The variable is not set.
    NotSet,
    /// The process was given no credentials by systemd.
    NoCredentials,
    /// There is no such file.
    NoFile,
    /// It is a folder, a pipe or a device.
    NotAFile,
    /// The file cannot be read.
    Unreadable(io::ErrorKind),
    /// Others than its owner may read or write the file, whose permissions these are.
    TooOpen(u32),
    /// It is empty.
    Empty,
    /// It has more than [`SECRET_BYTES_MAX`] bytes.
    TooLong,
    /// It is not UTF-8.
    NotText,
}

impl SecretFault {
    fn remedy(self, from: &SecretSource) -> String {
        let path = match from {
            SecretSource::File(path) => path.display().to_string(),
            SecretSource::Env(name) | SecretSource::Credential(name) => name.clone(),
        };
        match self {
            Self::NotSet => "it is not set; set it for the daemon, or keep the secret in a file".into(),
            Self::NoCredentials => format!(
                "{CREDENTIALS_DIRECTORY} is not set; start the daemon by systemd with LoadCredential={path}:FILE"
            ),
            Self::NoFile => "there is no such file".into(),
            Self::NotAFile => "it is no regular file".into(),
            Self::Unreadable(kind) => format!("it cannot be read by the daemon's user: {kind}"),
            Self::TooOpen(mode) => {
                format!("others than its owner can read or change it (mode {mode:04o}); chmod 600 {path}")
            }
            Self::Empty => "it is empty".into(),
            Self::TooLong => format!("it has more than {SECRET_BYTES_MAX} bytes"),
            Self::NotText => "it is not UTF-8 text".into(),
        }
    }
}

fn from_variable(environment: &Environment, name: &str) -> Result<SecretString, SecretFault> {
    let value = environment.variable(name).ok_or(SecretFault::NotSet)?;
    let value = Zeroizing::new(value.into_string().map_err(|_| SecretFault::NotText)?);
    trimmed(value.as_bytes())
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Readers {
    OwnerOnly,
    Any,
}

fn from_file(path: &Path, readers: Readers) -> Result<SecretString, SecretFault> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => SecretFault::NoFile,
        kind => SecretFault::Unreadable(kind),
    };
    // Before it is opened: to open a pipe would wait for a writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(SecretFault::NotAFile);
    }
    let file = File::open(path).map_err(unreadable)?;
    if readers == Readers::OwnerOnly {
        check_mode(&file).map_err(unreadable)??;
    }
    // Room for all there can be, so that no copy is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 64));
    let limit = u64::try_from(SECRET_BYTES_MAX + 1).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    trimmed(&bytes)
}

#[cfg(unix)]
fn check_mode(file: &File) -> io::Result<Result<(), SecretFault>> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    Ok(if mode & 0o077 == 0 { Ok(()) } else { Err(SecretFault::TooOpen(mode)) })
}

#[cfg(not(unix))]
fn check_mode(_: &File) -> io::Result<Result<(), SecretFault>> {
    Ok(Ok(()))
}

fn trimmed(bytes: &[u8]) -> Result<SecretString, SecretFault> {
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(SecretFault::TooLong);
    }
    let text = str::from_utf8(bytes).map_err(|_| SecretFault::NotText)?.trim_end_matches(['\r', '\n']);
    if text.is_empty() { Err(SecretFault::Empty) } else { Ok(text.into()) }
}

/// The deployment key that a secret spells out: 64 hexadecimal digits, as `openssl rand -hex 32` prints them.
///
/// # Errors
/// What was found in its place, without the text itself.
pub fn deployment_key(secret: &SecretString) -> Result<DeploymentKey, String> {
    let text = secret.expose_secret();
    if text.chars().count() != 64 {
        return Err(format!("{} characters", text.chars().count()));
    }
    hex_32(text)
        .map(|bytes| DeploymentKey::new(*bytes))
        .ok_or_else(|| "64 characters, not all of them hexadecimal digits".into())
}

/// The 32 bytes that 64 hexadecimal digits spell.
pub(crate) fn hex_32(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = Zeroizing::new([0; 32]);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(bytes)
}

type Kept = BTreeMap<SecretName, (SecretSource, SecretString)>;

/// The secrets of the config file, by name.
pub struct SecretStore {
    environment: Environment,
    kept: RwLock<Kept>,
}

impl SecretStore {
    /// Reads the secrets, and says which of them could not be read. A store that lacks some is good for checking a config
    /// file; a daemon does not start with it.
    pub fn resolve(
        sources: &BTreeMap<SecretName, SecretSource>,
        environment: &Environment,
    ) -> (Self, Vec<(SecretName, SecretError)>) {
        let (kept, errors) = read_all(sources, environment);
        (Self { environment: environment.clone(), kept: RwLock::new(kept) }, errors)
    }

    /// Reads all secrets again, from these places. If any of them cannot be read, all stay as they were.
    ///
    /// # Errors
    /// Those that could not be read.
    pub fn reload(&self, sources: &BTreeMap<SecretName, SecretSource>) -> Result<(), Vec<(SecretName, SecretError)>> {
        let (kept, errors) = read_all(sources, &self.environment);
        if !errors.is_empty() {
            return Err(errors);
        }
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = kept;
        Ok(())
    }
}

fn read_all(
    sources: &BTreeMap<SecretName, SecretSource>,
    environment: &Environment,
) -> (Kept, Vec<(SecretName, SecretError)>) {
    let (mut kept, mut errors) = (BTreeMap::new(), Vec::new());
    for (name, source) in sources {
        match source.resolve(environment) {
            Ok(secret) => drop(kept.insert(name.clone(), (source.clone(), secret))),
            Err(error) => errors.push((name.clone(), error)),
        }
    }
    (kept, errors)
}

impl Secrets for SecretStore {
    fn secret(&self, name: &SecretName) -> Option<SecretString> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.get(name).map(|(_, secret)| secret.clone())
    }
}

impl fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_map().entries(kept.iter().map(|(name, (source, _))| (name, source))).finish()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const SECRET: &str = "canary 7Lr2";

    fn fault(source: &SecretSource, environment: &Environment) -> Option<SecretFault> {
        let error = source.resolve(environment).err()?;
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        Some(error.fault)
    }

    fn nothing() -> Environment {
        Environment::of([("", "")])
    }

    /// A file with this content and mode.
    fn file(folder: &Path, content: &[u8], mode: u32) -> SecretSource {
        let path = folder.join("s");
        _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        SecretSource::File(path)
    }

    #[test]
    fn a_secret_is_read_without_its_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let credentials =
            Environment::of([("CREDENTIALS_DIRECTORY", folder.path()), ("S", format!("{SECRET}\r\n").as_ref())]);
        let read = |source: &SecretSource| source.resolve(&credentials).unwrap().expose_secret().to_owned();
        assert_eq!(read(&SecretSource::Env("S".into())), SECRET);
        assert_eq!(read(&file(folder.path(), format!("{SECRET}\n").as_bytes(), 0o400)), SECRET);
        // systemd's own files are readable by their group, in a folder that only the service can enter.
        file(folder.path(), format!(" {SECRET}").as_bytes(), 0o440);
        assert_eq!(read(&SecretSource::Credential("s".into())), format!(" {SECRET}"));
    }

    #[test]
    fn a_file_that_others_can_open_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601, 0o644] {
            let source = file(folder.path(), SECRET.as_bytes(), mode);
            assert_eq!(fault(&source, &nothing()), Some(SecretFault::TooOpen(mode)), "{mode:o}");
        }
        let error = file(folder.path(), SECRET.as_bytes(), 0o644).resolve(&nothing()).unwrap_err();
        let path = folder.path().join("s");
        let path = path.display();
        let expected =
            format!("file {path}: others than its owner can read or change it (mode 0644); chmod 600 {path}");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let of = |content: &[u8]| fault(&file(folder.path(), content, 0o600), &nothing());
        assert_eq!(of(b""), Some(SecretFault::Empty));
        assert_eq!(of(b"\n\r\n"), Some(SecretFault::Empty));
        assert_eq!(of(b"canary \xff"), Some(SecretFault::NotText));
        assert_eq!(of(&[b'x'; SECRET_BYTES_MAX]), None);
        assert_eq!(of(&[b'x'; SECRET_BYTES_MAX + 1]), Some(SecretFault::TooLong));
        let file = |path: &Path| fault(&SecretSource::File(path.into()), &nothing());
        assert_eq!(file(folder.path()), Some(SecretFault::NotAFile));
        assert_eq!(file(Path::new("/dev/null")), Some(SecretFault::NotAFile));
        assert_eq!(file(&folder.path().join("none")), Some(SecretFault::NoFile));
        assert_eq!(fault(&SecretSource::Env("S".into()), &nothing()), Some(SecretFault::NotSet));
        assert_eq!(fault(&SecretSource::Credential("s".into()), &nothing()), Some(SecretFault::NoCredentials));
    }

    #[test]
    fn a_source_survives_json_and_hides_what_it_is_not() {
        let folder = Path::new("/etc/kasm");
        for source in
            [SecretSource::Env("S_1".into()), SecretSource::File("/a/b".into()), SecretSource::Credential("s".into())]
        {
            assert_eq!(SecretSource::from_json(&source.to_json(), folder), Ok(source));
        }
        let relative = SecretSource::from_json(&json!({ "file": "b" }), folder);
        assert_eq!(relative, Ok(SecretSource::File("/etc/kasm/b".into())));
        for wrong in [
            json!("canary"),
            json!(["canary"]),
            json!({ "canary": 1 }),
            json!({ "env": "can ary" }),
            json!({ "file": "canary\0" }),
        ] {
            let problem = SecretSource::from_json(&wrong, folder).unwrap_err();
            assert!(!problem.to_string().contains("ary"), "{problem}");
        }
    }

    #[test]
    fn a_deployment_key_is_64_hexadecimal_digits() {
        assert!(deployment_key(&"0123456789abcdefABCDEF0123456789".repeat(2).into()).is_ok());
        assert_eq!(deployment_key(&"canary".into()).unwrap_err(), "6 characters");
        assert_eq!(
            deployment_key(&"g".repeat(64).into()).unwrap_err(),
            "64 characters, not all of them hexadecimal digits"
        );
        assert_eq!(
            deployment_key(&"\u{e4}".repeat(64).into()).unwrap_err(),
            "64 characters, not all of them hexadecimal digits"
        );
    }

    #[test]
    fn a_store_reads_again_and_keeps_what_it_has_if_it_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let name: SecretName = "desktop".parse().unwrap();
        let sources = BTreeMap::from([(name.clone(), file(folder.path(), SECRET.as_bytes(), 0o600))]);
        let (store, errors) = SecretStore::resolve(&sources, &nothing());
        let now = || store.secret(&name).map(|secret| secret.expose_secret().to_owned());
        assert_eq!((errors, now()), (vec![], Some(SECRET.into())));
        assert!(!format!("{store:?}").contains("canary"));
        file(folder.path(), b"other", 0o600);
        assert_eq!((store.reload(&sources), now()), (Ok(()), Some("other".into())));
        file(folder.path(), b"", 0o600);
        assert_eq!(store.reload(&sources).unwrap_err()[0].1.fault, SecretFault::Empty);
        assert_eq!(now(), Some("other".into()));
        assert_eq!((store.reload(&BTreeMap::new()), now()), (Ok(()), None));
    }
}
