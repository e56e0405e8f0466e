//! SoftHSM: an HSM in software, for a folder of tokens that goes with the run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::server::{Server, own_folder};
use super::{Part, Ready, Setup, apt};
use crate::shell;
use crate::workspace::Workspace;

/// The module. `SOFTHSM2_CONF` tells it where the tokens are; each test makes one of its own with `softhsm2-util`, and keys
/// with `pkcs11-tool`.
pub(crate) const PART: Part = Part { name: "softhsm", variable: "TOKENWARD_TEST_PKCS11_MODULE", set_up };

/// Where distributions put it.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

fn set_up(_: &Workspace, _: &Setup) -> Result<Ready> {
    if find().is_none() || shell::find("softhsm2-util").is_none() {
        apt::install("softhsm2")?;
    }
    if shell::find("pkcs11-tool").is_none() {
        apt::install("opensc")?;
    }
    let module =
        find().context("apt-get installed softhsm2, but its module is in none of the usual places")?;
    let folder = own_folder("softhsm")?;
    let guard = Server::keep("SoftHSM", &folder)?;
    let (tokens, configuration) = (format!("{folder}/tokens"), format!("{folder}/softhsm2.conf"));
    std::fs::create_dir(&tokens).with_context(|| format!("cannot create {tokens}"))?;
    let text = format!("directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n");
    std::fs::write(&configuration, text).with_context(|| format!("cannot write {configuration}"))?;
    Ok(Ready {
        value: module.into(),
        server: Some(guard),
        also: Some(("SOFTHSM2_CONF", configuration.into())),
    })
}

fn find() -> Option<PathBuf> {
    MODULES.iter().map(Path::new).find(|path| path.is_file()).map(Path::to_owned)
}
