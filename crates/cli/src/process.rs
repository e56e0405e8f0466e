//! This process: what it may leave behind, and how it is called in the list of servers.

use std::path::Path;

use rustix::process::{Resource, Rlimit, setrlimit};

/// A core dump would put every key and token in memory on a disk. For good: nothing raises a hard limit again.
pub(crate) fn forbid_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        // Logging is not set up yet, and lowering a limit is refused nowhere that is known.
        eprintln!("core dumps cannot be turned off: {error}");
    }
}

/// Keeps the memory from everybody but the machine's administrator, as a debugger or a file below `/proc` would show it, and
/// from core dumps where they go to a program: Linux asks no limit there.
#[cfg(target_os = "linux")]
pub(crate) fn hide_memory() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        // Logging is not set up yet, and no kernel is known that refuses it.
        eprintln!("the memory cannot be kept from debuggers: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn hide_memory() {}

/// Host and process.
pub(crate) fn describe() -> String {
    let host = host_name(Path::new("/proc/sys/kernel/hostname"));
    format!("process {} on {host}", std::process::id())
}

fn host_name(file: &Path) -> String {
    let name = std::fs::read_to_string(file).unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "an unnamed host".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_core_is_dumped() {
        forbid_core_dumps();
        let limit = rustix::process::getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_memory_is_hidden() {
        use rustix::process::{DumpableBehavior, dumpable_behavior};
        hide_memory();
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
    }

    #[test]
    fn a_process_is_described_by_number_and_host() {
        assert!(describe().starts_with(&format!("process {} on ", std::process::id())), "{}", describe());
        assert_eq!(host_name(Path::new("/nonexistent")), "an unnamed host");
    }
}
