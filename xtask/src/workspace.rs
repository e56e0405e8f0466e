//! Where things are: the checkout, and the git-ignored folder that chores install into.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// What makes cargo build the program with every backend, together with `--workspace`.
pub(crate) const ALL_BACKENDS: &str =
    "--features=tokenward-cli/openbao,tokenward-cli/pkcs11,tokenward-cli/aws-kms";

/// The checkout that the chores work on.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The checkout that cargo runs us from; a binary run by hand uses the one it was built in.
    pub(crate) fn find() -> Self {
        let package = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        Self { root: package.parent().map(Path::to_owned).unwrap_or(package) }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A file or folder of the checkout.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The git-ignored folder for what chores install and write, made when it is missing.
    pub(crate) fn scratch(&self) -> Result<PathBuf> {
        let folder = self.path(".xtask");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }

    /// A command that runs in the checkout's root.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = shell::command(program);
        command.current_dir(&self.root);
        command
    }

    /// The cargo that runs us, in the checkout's root.
    pub(crate) fn cargo(&self) -> Command {
        self.command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// Where cargo puts what it builds; `CARGO_TARGET_DIR` and configuration files may move it.
    pub(crate) fn target_dir(&self) -> Result<PathBuf> {
        let json = shell::output(self.cargo().args(["metadata", "--format-version=1", "--no-deps"]))?;
        let metadata: serde_json::Value = serde_json::from_str(&json)?;
        let folder =
            metadata["target_directory"].as_str().context("cargo metadata names no target folder")?;
        Ok(PathBuf::from(folder))
    }
}
