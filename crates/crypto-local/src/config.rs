use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tokenward_crypto::KeyEncryption;
use tokenward_plugin::{BackendDef, Prepared, Problems, Section, parse_section, read_secret};
use tokenward_types::{ExposeSecret, SecretString};

use crate::backend::{KIND, LocalKeys};
use crate::keyring::{self, Keyring};

/// Files below the folder that this variable names were handed over by systemd (systemd.exec(5), "Credentials").
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// `[encryption]` with `kind = "local"`: exactly one of the two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The keyring itself; meant for the environment.
    key: Option<SecretString>,
    /// The file that holds the keyring.
    key_file: Option<PathBuf>,
}

/// The backend `local`: AES-256-GCM keys in a keyring that the operator keeps.
pub fn local() -> BackendDef<Arc<dyn KeyEncryption>, ()> {
    BackendDef::new(KIND, "AES-256-GCM keyring in a file or an environment variable", |section, ()| {
        let credentials = std::env::var_os(CREDENTIALS_DIRECTORY).map(PathBuf::from);
        let keys = read(section, credentials.as_deref())?;
        Ok(Prepared::new(|| async { Ok(Arc::new(keys) as Arc<dyn KeyEncryption>) }))
    })
}

fn read(section: &Section, credentials: Option<&Path>) -> Result<LocalKeys, Problems> {
    let Config { key, key_file } = parse_section(section)?;
    match (key, key_file) {
        (None, Some(path)) => {
            let file =
                KeyFile { section: section.clone(), path, credentials: credentials.map(Path::to_owned) };
            Ok(LocalKeys::new(file.read()?, Some(file)))
        }
        (key, key_file) => {
            let text = read_secret(section, "key", key, key_file.as_ref())?;
            Ok(LocalKeys::new(parse(&section.option("key"), &text)?, None))
        }
    }
}

fn parse(at: &str, text: &SecretString) -> Result<Keyring, Problems> {
    keyring::parse(text.expose_secret()).map_err(|messages| {
        let mut problems = Problems::new();
        for message in messages {
            problems.add(at, message);
        }
        problems
    })
}

/// A keyring in a file, which is read again whenever the keys are asked for.
pub(crate) struct KeyFile {
    section: Section,
    path: PathBuf,
    credentials: Option<PathBuf>,
}

impl KeyFile {
    /// The keyring that the file holds now.
    pub(crate) fn read(&self) -> Result<Keyring, Problems> {
        let at = self.section.option("key_file");
        let mut problems = Problems::new();
        if let Err(message) = check_file(&self.path, self.credentials.as_deref()) {
            problems.add(&at, message);
        }
        let keyring = problems
            .check(read_secret(&self.section, "key", None, Some(&self.path)))
            .and_then(|text| problems.check(parse(&at, &text)));
        match keyring {
            Some(keyring) if problems.is_empty() => Ok(keyring),
            _ => Err(problems),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

// A section may hold a secret.
impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Refuses files that others than their owner can read. A file that is absent is left for reading to report.
fn check_file(path: &Path, credentials: Option<&Path>) -> Result<(), String> {
    let Ok(metadata) = std::fs::metadata(path) else { return Ok(()) };
    let shown = path.display();
    if !metadata.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let mode = mode(&metadata);
    // systemd gives 0440 with an access list that lets in the service's user alone; the group bits show that list's mask.
    let (forbidden, whom) =
        if is_below(path, credentials) { (0o007, "everybody") } else { (0o077, "group or others") };
    if mode & forbidden == 0 {
        return Ok(());
    }
    Err(format!("{shown} is open to {whom} (mode {mode:04o}): chmod 600 {shown}"))
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}

fn is_below(path: &Path, folder: Option<&Path>) -> bool {
    let resolve = |path: &Path| std::fs::canonicalize(path).ok();
    match (resolve(path), folder.and_then(resolve)) {
        (Some(path), Some(folder)) => path.starts_with(folder),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a scratch folder"))
        }

        fn file(&self, mode: u32) -> PathBuf {
            let path = self.0.path().join("key");
            std::fs::write(&path, keyring::generate_key(1).expose_secret()).expect("the folder takes files");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
            path
        }
    }

    fn read_file(path: &Path, credentials: Option<&Path>) -> Result<LocalKeys, String> {
        let serde_json::Value::Object(values) = serde_json::json!({ "key_file": path }) else {
            panic!("a section is an object")
        };
        let section = Section { at: "encryption".into(), name: "encryption".into(), values };
        read(&section, credentials).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_file_that_only_its_owner_reads_is_taken() {
        for mode in [0o400, 0o600, 0o700] {
            let folder = Folder::new();
            read_file(&folder.file(mode), None).expect("only the owner reads it");
        }
    }

    #[test]
    fn a_file_that_others_read_is_refused_with_the_remedy() {
        for mode in [0o640, 0o604, 0o644, 0o620, 0o601] {
            let folder = Folder::new();
            let path = folder.file(mode);
            let shown = path.display();
            assert_eq!(
                read_file(&path, None).unwrap_err(),
                format!(
                    "encryption.key_file: {shown} is open to group or others (mode {mode:04o}): chmod 600 {shown}"
                )
            );
        }
    }

    #[test]
    fn a_systemd_credential_may_show_group_bits_but_not_those_of_everybody() {
        let folder = Folder::new();
        let path = folder.file(0o440);
        read_file(&path, Some(folder.0.path())).expect("systemd gives 0440");
        let path = folder.file(0o444);
        let message = read_file(&path, Some(folder.0.path())).unwrap_err();
        assert!(message.contains("open to everybody (mode 0444)"), "{message}");
    }

    #[test]
    fn a_file_outside_of_the_credentials_folder_is_held_to_the_strict_rule() {
        let (folder, credentials) = (Folder::new(), Folder::new());
        let path = folder.file(0o440);
        assert!(read_file(&path, Some(credentials.0.path())).is_err());
        let detour = credentials.0.path().join("..").join(folder.0.path().file_name().unwrap()).join("key");
        assert!(read_file(&detour, Some(credentials.0.path())).is_err());
    }

    #[test]
    fn a_folder_is_not_a_key_file() {
        let folder = Folder::new();
        let message = read_file(folder.0.path(), None).unwrap_err();
        assert!(message.contains("is not a file"), "{message}");
    }

    #[test]
    fn debug_of_the_configuration_shows_no_key() {
        let key = keyring::generate_key(1);
        let config: Config = serde_json::from_value(serde_json::json!({ "key": key.expose_secret() }))
            .expect("it is a config");
        let shown = format!("{config:?}");
        assert!(!shown.contains(key.expose_secret()) && !shown.contains("1:"), "{shown}");
    }
}
