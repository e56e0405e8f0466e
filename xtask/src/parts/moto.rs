//! A stand-in for AWS.

use anyhow::{Context, Result};

use super::server::{Server, free_port, own_folder, wait_for_port};
use super::{Part, Ready, Setup, python};
use crate::workspace::Workspace;

/// The URL of a moto server; each test makes keys of its own. `AWS_SHARED_CREDENTIALS_FILE` goes with it, so that AWS's own
/// chain of credentials finds some.
pub(crate) const PART: Part = Part { name: "moto", variable: "TOKENWARD_TEST_MOTO_URL", set_up };

/// moto checks no signature.
const CREDENTIALS: &str =
    "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = canary-secret-access-key-5e0b\n";

fn set_up(workspace: &Workspace, _: &Setup) -> Result<Ready> {
    let program = python::environment(workspace, "moto")?.join("moto_server");
    let folder = own_folder("moto")?;
    let credentials = format!("{folder}/credentials");
    std::fs::write(&credentials, CREDENTIALS).with_context(|| format!("cannot write {credentials}"))?;
    let port = free_port()?;
    let server = Server::run_as_self(
        "moto",
        &folder,
        &[&program.to_string_lossy(), "-H", "127.0.0.1", "-p", &port.to_string()],
    )?;
    wait_for_port(port, &folder)?;
    let url = format!("http://127.0.0.1:{port}");
    let also = Some(("AWS_SHARED_CREDENTIALS_FILE", credentials.into()));
    Ok(Ready { value: url.into(), server: Some(server), also })
}
