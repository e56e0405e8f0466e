//! The API contract in `proto/`.

use anyhow::Result;

use super::{Context, Outcome, passed};
use crate::shell;
use crate::workspace::Workspace;

pub(super) fn lint(context: &Context) -> Result<Outcome> {
    passed(shell::run(context.program("buf")?.args(["lint", "proto"])))
}

/// Compares the contract with the one before it: nothing that callers rely on may go or change its meaning.
pub(super) fn breaking(context: &Context) -> Result<Outcome> {
    let Some(base) = base(context.workspace) else {
        return Ok(Outcome::Nothing("no earlier commit".to_owned()));
    };
    let tree = format!("{}:proto", base.commit);
    if git(context.workspace, &["rev-parse", "--verify", "--quiet", &tree]).is_none() {
        return Ok(Outcome::Nothing(format!("{} has no proto/", base.name)));
    }
    println!("comparing with {}", base.name);
    let folder = context.workspace.scratch()?.join("proto-before");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let archive = context.workspace.scratch()?.join("proto-before.tar");
    let mut export = context.workspace.command("git");
    shell::output(export.args(["archive", "--output"]).arg(&archive).args([&base.commit, "proto"]))?;
    shell::output(context.workspace.command("tar").arg("-xf").arg(&archive).arg("-C").arg(&folder))?;
    let mut buf = context.program("buf")?;
    passed(shell::run(buf.args(["breaking", "proto", "--against"]).arg(folder.join("proto"))))
}

struct Base {
    commit: String,
    name: String,
}

/// What to compare with: the last release, which is what callers have; without one, where a branch left main; on
/// main itself, the commit before.
fn base(workspace: &Workspace) -> Option<Base> {
    let named = |name: &str, commit: String| Base { commit, name: name.to_owned() };
    if let Some(tag) = git(workspace, &["describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD"]) {
        let commit = git(workspace, &["rev-parse", &format!("{tag}^{{commit}}")])?;
        return Some(named(&format!("the release {tag}"), commit));
    }
    let head = git(workspace, &["rev-parse", "--verify", "--quiet", "HEAD"])?;
    if git(workspace, &["diff", "--quiet", "HEAD", "--", "proto"]).is_none() {
        return Some(named("the last commit (proto/ was edited since)", head));
    }
    for main in ["origin/main", "main"] {
        if let Some(fork) = git(workspace, &["merge-base", "HEAD", main]).filter(|fork| *fork != head) {
            return Some(named(&format!("where this branch left {main}"), fork));
        }
    }
    Some(named("the commit before", git(workspace, &["rev-parse", "--verify", "--quiet", "HEAD~1"])?))
}

/// What git prints, or nothing if it fails.
fn git(workspace: &Workspace, arguments: &[&str]) -> Option<String> {
    shell::output(workspace.command("git").args(arguments)).ok()
}
