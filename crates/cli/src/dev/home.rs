//! The folder of a development run: keys, tokens, and the database where it is to be kept.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use tokenward_types::{SystemClock, SystemRng, generate_suffix};

use super::demo::Tokens;
use crate::builtins;
use crate::commands::write_new_key;
use crate::failure::Failure;

/// The folder; one that nobody asked to keep goes with it.
pub(super) struct Home {
    path: PathBuf,
    keep: bool,
}

impl Home {
    /// Opens the folder, and makes a key where there is none.
    pub(super) fn open(data_dir: Option<&Path>) -> Result<Self, Failure> {
        let temporary = || {
            std::env::temp_dir().join(format!("tokenward-dev-{}", generate_suffix(&SystemClock, &SystemRng)))
        };
        let home = Self { path: data_dir.map_or_else(temporary, Path::to_owned), keep: data_dir.is_some() };
        fs::DirBuilder::new()
            .recursive(home.keep)
            .mode(0o700)
            .create(&home.path)
            .map_err(|error| Failure::new(format!("cannot make {}: {error}", home.path.display())))?;
        if !home.key_file().exists() {
            write_new_key(&home.key_file(), &builtins::generate_key(1))?;
        }
        Ok(home)
    }

    /// The database file, or `None` for a database in memory.
    pub(super) fn database(&self) -> Option<PathBuf> {
        self.keep.then(|| self.path.join("tokenward.db"))
    }

    pub(super) fn key_file(&self) -> PathBuf {
        self.path.join("dev.key")
    }

    pub(super) fn token_file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}-token"))
    }

    /// Writes the tokens to files, for `--token-file`.
    pub(super) fn write_tokens(&self, tokens: &Tokens) -> Result<(), Failure> {
        for (name, token) in
            [("caller", &tokens.caller), ("operator", &tokens.operator), ("admin", &tokens.admin)]
        {
            write_private(&self.token_file(name), token)?;
        }
        Ok(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Writes a file that only its owner can read, and puts it in place whole.
pub(super) fn write_private(path: &Path, text: &SecretString) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let partial = path.with_file_name(name);
    let _ = fs::remove_file(&partial);
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&partial).map_err(cannot)?;
    file.write_all(text.expose_secret().as_bytes()).map_err(cannot)?;
    fs::rename(&partial, path).map_err(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_kept_folder_keeps_its_key_and_a_temporary_one_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = fs::read(Home::open(Some(&path)).unwrap().key_file()).unwrap();
        let again = Home::open(Some(&path)).unwrap();
        assert_eq!(fs::read(again.key_file()).unwrap(), first);
        assert!(again.database().is_some());
        let temporary = Home::open(None).unwrap();
        let path = temporary.path.clone();
        assert!(path.exists() && temporary.database().is_none());
        drop(temporary);
        assert!(!path.exists());
    }

    #[test]
    fn a_private_file_replaces_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        fs::write(&path, "old").unwrap();
        write_private(&path, &"new".into()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
