//! What an operator installs, and the shell scripts of the repository.

use std::path::Path;

use anyhow::Result;

use super::{Context, Outcome, passed};
use crate::shell;

/// Checks every shell script that git knows or would add.
pub(super) fn shellcheck(context: &Context) -> Result<Outcome> {
    let mut git = context.workspace.command("git");
    let files = shell::output(git.args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let scripts: Vec<_> = files.lines().filter(|file| is_script(&context.workspace.path(file))).collect();
    if scripts.is_empty() {
        return Ok(Outcome::Nothing("no shell script".to_owned()));
    }
    passed(shell::run(context.program("shellcheck")?.args(&scripts)))
}

/// A script is known by its name or by its first line.
fn is_script(file: &Path) -> bool {
    let Ok(content) = std::fs::read(file) else { return false };
    let named = file.extension().is_some_and(|extension| extension == "sh" || extension == "bash");
    let first_line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let interpreter = String::from_utf8_lossy(first_line);
    named
        || (interpreter.starts_with("#!") && (interpreter.ends_with("/sh") || interpreter.ends_with("bash")))
}

pub(super) fn hadolint(context: &Context) -> Result<Outcome> {
    on_file(context, "deploy/Dockerfile", "hadolint", &["deploy/Dockerfile"])
}

/// Parses the compose file and resolves everything it refers to; needs no container engine.
pub(super) fn compose(context: &Context) -> Result<Outcome> {
    let file = "deploy/compose.yaml";
    on_file(context, file, "docker-compose", &["-f", file, "config", "--quiet"])
}

fn on_file(context: &Context, file: &str, program: &str, arguments: &[&str]) -> Result<Outcome> {
    if !context.workspace.path(file).is_file() {
        return Ok(Outcome::Nothing(format!("there is no {file}")));
    }
    passed(shell::run(context.program(program)?.args(arguments)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_known_by_name_or_first_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            is_script(&path)
        };
        assert!(file("run", "#!/usr/bin/env bash\nexit\n"));
        assert!(file("plain", "#!/bin/sh\n"));
        assert!(file("named.sh", "exit\n"));
        assert!(!file("tool.py", "#!/usr/bin/env python3\n"));
        assert!(!file("notes", "bash\n"));
        assert!(!is_script(&folder.path().join("absent.sh")), "git may list a file that is gone");
    }
}
