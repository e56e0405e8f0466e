//! What we depend on: licences, sources, bans (`deny.toml`) and known vulnerabilities.

use anyhow::Result;

use super::{Context, Outcome, passed};
use crate::shell;

pub(super) fn deny(context: &Context) -> Result<Outcome> {
    let mut deny = context.program("cargo-deny")?;
    // Advisories are left to cargo-audit.
    passed(shell::run(deny.args(["--locked", "check", "licenses", "bans", "sources"])))
}

/// `TOKENWARD_ADVISORY_DB` names a local copy of the RustSec database; without it cargo-audit fetches its own.
pub(super) fn audit(context: &Context) -> Result<Outcome> {
    let mut audit = context.program("cargo-audit")?;
    audit.arg("audit");
    if let Some(copy) = std::env::var_os("TOKENWARD_ADVISORY_DB").filter(|path| !path.is_empty()) {
        audit.arg("--db").arg(copy).args(["--no-fetch", "--stale"]);
    }
    passed(shell::run(&mut audit))
}
