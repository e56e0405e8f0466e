//! OpenBao: the program, and a server in memory that its tests share.

use std::path::PathBuf;

use anyhow::Result;

use super::server::{Server, free_port, own_folder, wait_for_port};
use super::{Part, Ready, Setup, python};
use crate::workspace::Workspace;

/// The address of a server whose root token is `root`; each test makes engines, policies and roles of its own.
pub(crate) const PART: Part = Part { name: "openbao", variable: "TOKENWARD_TEST_OPENBAO_ADDR", set_up };

/// The program `bao`, for tests that seal or stop a server of their own.
pub(crate) const PROGRAM: Part = Part {
    name: "bao",
    variable: "TOKENWARD_TEST_BAO",
    set_up: |workspace, _| Ok(Ready::installed(program(workspace)?)),
};

fn program(workspace: &Workspace) -> Result<PathBuf> {
    Ok(python::environment(workspace, "openbao")?.join("bao"))
}

fn set_up(workspace: &Workspace, _: &Setup) -> Result<Ready> {
    let program = program(workspace)?;
    let folder = own_folder("openbao")?;
    let port = free_port()?;
    let listen = format!("-dev-listen-address=127.0.0.1:{port}");
    let program = program.to_string_lossy();
    let arguments = [&*program, "server", "-dev", "-dev-root-token-id=root", "-dev-no-store-token", &listen];
    let server = Server::run_as_self("OpenBao", &folder, &arguments)?;
    wait_for_port(port, &folder)?;
    Ok(Ready::started(format!("http://127.0.0.1:{port}"), server))
}
