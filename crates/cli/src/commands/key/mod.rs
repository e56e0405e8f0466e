mod job;
mod status;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};
use tokenward_api::admin::v1::key_service_client::KeyServiceClient;
use tokenward_api::admin::v1::{
    GetKeyJobRequest, ListEncryptionKeysRequest, RetireEncryptionKeyRequest, RotateDataKeysRequest,
    RotateEncryptionKeyRequest, VerifyStoredSecretsRequest,
};

use crate::failure::Failure;
use crate::remote::{AdminArgs, Client};
use crate::{builtins, output};

/// What to do with keys.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    admin: AdminArgs,
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
    /// Show every key-encryption key: its state, what it wraps, and which backups need it.
    #[command(after_help = "Example:\n  tokenward key status --data-keys --output json")]
    Status {
        /// Show every data key too.
        #[arg(long)]
        data_keys: bool,
    },
    /// Make the newest key-encryption key the active one, and wrap every data key by it.
    ///
    /// Where the backend makes versions, a new one is made first. With the `local` backend, add a line to the keyring of every
    /// server before: it is seen without a restart. Nothing is interrupted, and the former key goes on opening what it wrapped.
    #[command(
        after_help = "Example:\n  tokenward key generate --version 2 >> /etc/tokenward/tokenward.key\n  \
                            tokenward key rotate"
    )]
    Rotate {
        #[command(flatten)]
        wait: job::Wait,
    },
    /// Make new data keys, and seal every stored secret anew, while everything goes on.
    #[command(after_help = "Example:\n  tokenward key rotate-data --tenant acme")]
    RotateData {
        /// Only this tenant's; without it everybody's, and the installation's.
        #[arg(long, value_name = "TENANT", default_value = "")]
        tenant: String,
        #[command(flatten)]
        wait: job::Wait,
    },
    /// Move every data key to another encryption backend, which every server has open as [encryption.next].
    #[command(after_help = "Example:\n  tokenward key migrate --to openbao")]
    Migrate {
        /// The backend's kind.
        #[arg(long, value_name = "KIND")]
        to: String,
        #[command(flatten)]
        wait: job::Wait,
    },
    /// Retire a key-encryption key that nothing uses, so that it can be destroyed.
    #[command(after_help = "Example:\n  tokenward key retire local:1")]
    Retire {
        /// Its name, as `key status` shows it.
        name: String,
    },
    /// Open every stored secret, and report those that do not decrypt.
    #[command(after_help = "Example:\n  tokenward key verify")]
    Verify {
        /// Only this tenant's; without it everybody's, and the installation's.
        #[arg(long, value_name = "TENANT", default_value = "")]
        tenant: String,
        #[command(flatten)]
        wait: job::Wait,
    },
    /// Show a job, and go on waiting for it.
    #[command(after_help = "Example:\n  tokenward key job job_01J0000000000000000000000")]
    Job {
        /// The job.
        job: String,
        #[command(flatten)]
        wait: job::Wait,
    },
}

pub(super) async fn run(args: &KeyArgs) -> Result<(), Failure> {
    if let KeyCommand::Generate { version, file } = &args.command {
        let key = builtins::generate_key(*version);
        return match file {
            None => output::print(&format!("{}\n", key.expose_secret())),
            Some(path) => write_new(path, &key),
        };
    }
    let mut client = KeyServiceClient::new(args.admin.client()?);
    let output = args.admin.output();
    let (job, wait) = match &args.command {
        KeyCommand::Generate { .. } => return Ok(()),
        KeyCommand::Status { data_keys } => return status::run(&mut client, output, *data_keys).await,
        KeyCommand::Retire { name } => {
            let request = RetireEncryptionKeyRequest { name: name.clone() };
            return output
                .one(&status::KeyView::from(client.retire_encryption_key(request).await?.into_inner()));
        }
        KeyCommand::Rotate { wait } => {
            (client.rotate_encryption_key(RotateEncryptionKeyRequest::default()).await?, wait)
        }
        KeyCommand::Migrate { to, wait } => {
            (client.rotate_encryption_key(RotateEncryptionKeyRequest { backend: to.clone() }).await?, wait)
        }
        KeyCommand::RotateData { tenant, wait } => {
            (client.rotate_data_keys(RotateDataKeysRequest { tenant_id: tenant.clone() }).await?, wait)
        }
        KeyCommand::Verify { tenant, wait } => (
            client.verify_stored_secrets(VerifyStoredSecretsRequest { tenant_id: tenant.clone() }).await?,
            wait,
        ),
        KeyCommand::Job { job, wait } => {
            (client.get_key_job(GetKeyJobRequest { key_job_id: job.clone() }).await?, wait)
        }
    };
    job::follow(&mut client, output, job.into_inner(), wait).await
}

/// The key-encryption keys that backups from before now may need; none where that cannot be told.
pub(super) async fn needed_by_backups(client: Client) -> Vec<String> {
    let listed = KeyServiceClient::new(client).list_encryption_keys(ListEncryptionKeysRequest {}).await;
    let Ok(keys) = listed else { return Vec::new() };
    let keys = keys.into_inner().encryption_keys.into_iter();
    keys.filter(|key| key.activate_time.is_some()).map(|key| key.name).collect()
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
