//! A browser, for the paths that a person clicks through.

use std::path::Path;

use anyhow::{Context, Result};

use super::{Part, Ready, Setup, apt};
use crate::shell;
use crate::workspace::Workspace;

/// Debian's Chromium; the tests drive it with playwright-core.
pub(crate) const PART: Part = Part { name: "chromium", variable: "TOKENWARD_TEST_CHROMIUM", set_up };

fn set_up(_: &Workspace, _: &Setup) -> Result<Ready> {
    if find().is_none() {
        apt::install("chromium")?;
    }
    find().map(Ready::installed).context("apt-get installed chromium, but it is not in PATH")
}

fn find() -> Option<std::path::PathBuf> {
    let debian = Path::new("/usr/bin/chromium");
    if debian.is_file() { Some(debian.to_owned()) } else { shell::find("chromium") }
}
