//! Every backend that this build has. The only file that names them: to add one, add its line here.

use std::sync::Arc;

use tokenward_crypto::KeyEncryption;
use tokenward_plugin::{BackendDef, Registry};
use tokenward_provider::{Provider, ProviderContext};
use tokenward_storage::{Storage, StorageContext};

/// Where data is stored.
pub(crate) fn storage() -> Registry<Arc<dyn Storage>, StorageContext> {
    Registry::new("storage")
        .with(tokenward_storage_sea::sqlite())
        .with(tokenward_storage_sea::postgres())
        .with(tokenward_storage_sea::mysql())
}

/// What encrypts the keys that encrypt.
pub(crate) fn encryption() -> Registry<Arc<dyn KeyEncryption>, ()> {
    Registry::new("encryption")
        .with(tokenward_crypto_local::local())
        .with(openbao())
        .with(pkcs11())
        .with(awskms())
}

type Encryption = BackendDef<Arc<dyn KeyEncryption>, ()>;

#[cfg(feature = "openbao")]
fn openbao() -> Encryption {
    tokenward_crypto_openbao::openbao()
}

#[cfg(not(feature = "openbao"))]
fn openbao() -> Encryption {
    BackendDef::compiled_out("openbao", "Transit engine of OpenBao or HashiCorp Vault", "openbao")
}

#[cfg(feature = "pkcs11")]
fn pkcs11() -> Encryption {
    tokenward_crypto_pkcs11::pkcs11()
}

#[cfg(not(feature = "pkcs11"))]
fn pkcs11() -> Encryption {
    BackendDef::compiled_out("pkcs11", "AES key of an HSM, by PKCS #11", "pkcs11")
}

#[cfg(feature = "aws-kms")]
fn awskms() -> Encryption {
    tokenward_crypto_awskms::awskms()
}

#[cfg(not(feature = "aws-kms"))]
fn awskms() -> Encryption {
    BackendDef::compiled_out("aws-kms", "Keys of AWS KMS", "aws-kms")
}

/// The vendors.
pub(crate) fn providers() -> Registry<Arc<dyn Provider>, ProviderContext> {
    Registry::new("provider").with(tokenward_provider::oauth2()).with(tokenward_provider_hubspot::hubspot())
}

/// A new encryption key as a line for the keyring of the encryption backend that needs no service.
pub(crate) fn generate_key(version: u32) -> secrecy::SecretString {
    tokenward_crypto_local::generate_key(version)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// The kinds for which no test runs the suite: a line `tokenward_testkit::SUITE!(PREFIXKIND, FIXTURE);`.
    fn without_conformance_run<'a>(suite: &str, kinds: &[&'a str], sources: &[String]) -> Vec<&'a str> {
        let runs = |kind: &str| {
            let line = format!("tokenward_testkit::{suite}{}, ", kind.replace('-', "_"));
            sources.iter().flat_map(|source| source.lines()).any(|found| found.starts_with(&line))
        };
        kinds.iter().copied().filter(|kind| !runs(kind)).collect()
    }

    const STORAGE: &str = "storage_conformance!(on_";
    const ENCRYPTION: &str = "key_encryption_conformance!(";

    fn rust_files(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                rust_files(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }

    fn sources() -> Vec<String> {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut sources = Vec::new();
        for entry in std::fs::read_dir(crates).unwrap() {
            rust_files(&entry.unwrap().path().join("tests"), &mut sources);
        }
        sources
    }

    #[test]
    fn every_storage_kind_has_a_conformance_run() {
        let registry = super::storage();
        let kinds: Vec<_> = registry.iter().map(tokenward_plugin::BackendDef::kind).collect();
        assert!(kinds.contains(&"sqlite"), "{kinds:?}");
        assert_eq!(without_conformance_run(STORAGE, &kinds, &sources()), Vec::<&str>::new());
    }

    #[test]
    fn every_encryption_kind_has_a_conformance_run() {
        let registry = super::encryption();
        let kinds: Vec<_> = registry.iter().map(tokenward_plugin::BackendDef::kind).collect();
        assert_eq!(kinds, KINDS);
        assert_eq!(without_conformance_run(ENCRYPTION, &kinds, &sources()), Vec::<&str>::new());
    }

    /// Those that are not in this build are known too.
    const KINDS: [&str; 4] = ["aws-kms", "local", "openbao", "pkcs11"];

    #[test]
    fn a_kind_that_is_not_in_this_build_says_how_to_get_it() {
        let registry = super::encryption();
        for def in registry.iter().filter(|def| !def.is_compiled_in()) {
            let (kind, values) = (def.kind(), serde_json::Map::new());
            let section =
                tokenward_plugin::Section { at: "encryption".into(), name: "encryption".into(), values };
            let problems = registry.prepare(kind, &section, &()).err().unwrap();
            let remedy = format!(
                "{kind:?} is not in this build: build with `cargo build --release --features {kind}`"
            );
            assert_eq!(problems.to_string(), format!("encryption.kind: {remedy}"));
        }
    }

    #[test]
    fn a_kind_without_a_conformance_run_is_found() {
        let lines = [
            "tokenward_testkit::storage_conformance!(on_sqlite, sqlite_file);",
            "// tokenward_testkit::storage_conformance!(on_paper, drawing);",
            "tokenward_testkit::storage_conformance!(on_postgres18, server);",
        ];
        let sources = [lines.join("\n")];
        let found = without_conformance_run(STORAGE, &["sqlite", "paper", "postgres"], &sources);
        assert_eq!(found, ["paper", "postgres"], "a remark does not count, nor does a longer name");
        let sources = ["tokenward_testkit::key_encryption_conformance!(aws_kms, server);".to_owned()];
        let found = without_conformance_run(ENCRYPTION, &["aws-kms", "aws"], &sources);
        assert_eq!(found, ["aws"]);
    }
}
