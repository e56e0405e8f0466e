//! Node packages: HubSpot's own client, a gRPC client and the browser driver.

use anyhow::{Context, Result, bail};

use super::stamp::Stamp;
use super::{Part, Ready, Setup};
use crate::shell;
use crate::workspace::Workspace;

/// The folder whose `node_modules` holds what `xtask/node/package-lock.json` pins.
pub(crate) const PART: Part = Part { name: "node", variable: "TOKENWARD_TEST_NODE_DIR", set_up };

fn set_up(workspace: &Workspace, _: &Setup) -> Result<Ready> {
    let folder = workspace.scratch()?.join("node");
    if shell::find("node").is_none() || shell::find("npm").is_none() {
        bail!("needs Node.js 20 or newer with npm: https://nodejs.org/");
    }
    let version = shell::output(shell::command("node").arg("--version"))?;
    let read = |name: &str| {
        let path = workspace.path("xtask/node").join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (package, lock) = (read("package.json")?, read("package-lock.json")?);
    let stamp = Stamp::new(&folder, &[&version, &package, &lock]);
    if stamp.is_current() {
        return Ok(Ready::installed(folder));
    }
    println!("installing the Node packages of xtask/node/package-lock.json into .xtask/node");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("package.json"), package)?;
    std::fs::write(folder.join("package-lock.json"), lock)?;
    let mut npm = shell::command("npm");
    // No package here needs its install script, so none is run.
    npm.current_dir(&folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    shell::output(&mut npm)?;
    stamp.write()?;
    Ok(Ready::installed(folder))
}
