//! Only `src/builtins.rs` names concrete backends, comments included: adding one is a line there and nowhere else.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

const BACKENDS: [&str; 7] = [
    "tokenward_storage_sea",
    "tokenward_crypto_local",
    "tokenward_crypto_awskms",
    "tokenward_crypto_openbao",
    "tokenward_crypto_pkcs11",
    "tokenward_provider_hubspot",
    "tokenward_provider::oauth2",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn only_one_file_names_concrete_backends() {
    let mut files = Vec::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
    let naming: Vec<_> = files
        .iter()
        .filter(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            BACKENDS.iter().any(|backend| text.contains(backend) || text.contains(&backend.replace('_', "-")))
        })
        .map(|path| path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(naming, ["builtins.rs"]);
}
