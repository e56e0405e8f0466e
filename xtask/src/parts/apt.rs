//! Debian packages: installed when run as root, else named with the command that would.

use anyhow::{Result, bail};

use crate::shell;

/// Installs a Debian package, saying so first. Anyone but root, and any system without apt-get, gets an error
/// that names what to do.
pub(crate) fn install(package: &str) -> Result<()> {
    let arguments = ["install", "--yes", "--no-install-recommends", package];
    if shell::find("apt-get").is_none() {
        bail!("install {package} with this system's package manager");
    }
    if !shell::is_root() {
        bail!("needs a system package: sudo apt-get {}", arguments.join(" "));
    }
    println!("installing Debian packages: {package}");
    let apt = || {
        let mut command = shell::command("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    shell::run(apt().arg("update"))?;
    shell::run(apt().args(arguments))
}
