//! Remembering what was installed, so that nothing is installed twice.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A file that holds, word for word, what an installed folder was installed from.
pub(crate) struct Stamp {
    file: PathBuf,
    inputs: String,
}

impl Stamp {
    /// `folder` is what gets installed; its path is an input too, since a Python venv cannot be moved.
    pub(crate) fn new(folder: &Path, inputs: &[&str]) -> Self {
        let mut text = format!("{}\n", folder.display());
        for input in inputs {
            text.push_str(input);
            text.push('\n');
        }
        Self { file: folder.join(".installed-from"), inputs: text }
    }

    /// Whether the folder was installed, to the end, from these inputs.
    pub(crate) fn is_current(&self) -> bool {
        std::fs::read_to_string(&self.file).is_ok_and(|found| found == self.inputs)
    }

    /// Notes that the folder is installed now; to be called last.
    pub(crate) fn write(&self) -> Result<()> {
        std::fs::write(&self.file, &self.inputs)
            .with_context(|| format!("cannot write {}", self.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_current_only_after_it_was_stamped_with_the_same_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = Stamp::new(folder.path(), &["grpcio==1.0", "Python 3.11"]);
        assert!(!stamp.is_current(), "nothing was installed yet");
        stamp.write().unwrap();
        assert!(stamp.is_current());
        assert!(!Stamp::new(folder.path(), &["grpcio==1.1", "Python 3.11"]).is_current(), "a pin changed");
    }

    #[test]
    fn a_folder_that_was_moved_is_not_current() {
        let parent = tempfile::tempdir().unwrap();
        let (before, after) = (parent.path().join("before"), parent.path().join("after"));
        std::fs::create_dir(&before).unwrap();
        Stamp::new(&before, &["x"]).write().unwrap();
        std::fs::rename(&before, &after).unwrap();
        assert!(!Stamp::new(&after, &["x"]).is_current());
    }
}
