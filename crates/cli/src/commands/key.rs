use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};

use crate::failure::Failure;
use crate::{builtins, output};

/// What to do with keys.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make an encryption key for the `local` backend.
    ///
    /// Without --file the line goes to standard output. Keep a copy of the key apart from the database and its backups:
    /// without it nothing that is stored can be read.
    #[command(after_help = "Example:\n  tokenward key generate --file /etc/tokenward/tokenward.key")]
    Generate {
        /// The key's version; a keyring's highest version seals, all of them open.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        version: u32,
        /// Write to this new file, which only its owner can read.
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
    },
}

pub(super) fn run(args: &KeyArgs) -> Result<(), Failure> {
    let KeyCommand::Generate { version, file } = &args.command;
    let key = builtins::generate_key(*version);
    match file {
        None => output::print(&format!("{}\n", key.expose_secret())),
        Some(path) => write_new(path, &key),
    }
}

/// Writes a secret to a file that did not exist.
pub(crate) fn write_new(path: &Path, secret: &SecretString) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| {
        let failure = Failure::new(format!("cannot write {}: {error}", path.display()));
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            return failure.hint("an existing key is never overwritten: name another file");
        }
        failure
    };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(cannot)?;
    file.write_all(format!("{}\n", secret.expose_secret()).as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_goes_to_a_new_file_of_its_owner_and_never_over_an_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_new(&path, &"1:first".into()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write_new(&path, &"1:second".into()).unwrap_err().to_string().contains("never overwritten"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1:first\n");
    }
}
