//! What the figures were measured on, and what `/proc` tells of a process.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::load::may_go_first;

/// Clock ticks per second in `/proc/PID/stat`: a constant of Linux's interface (proc_pid_stat(5), USER_HZ).
const TICKS_PER_SECOND: u64 = 100;

/// The computer.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processors that we may use.
    pub cores: usize,
    /// What the first processor calls itself.
    pub cpu_model: String,
    /// The kernel's release.
    pub kernel: String,
    /// Memory in megabytes.
    pub memory_mb: u64,
    /// How TCP decides what to send, over loopback as well.
    pub congestion_control: String,
    /// Whether callers at a fixed rate go ahead of the servers, as if they were on another machine.
    pub callers_go_first: bool,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or("", |(_, value)| value.trim()).to_owned()
        };
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            cpu_model: field(&read("/proc/cpuinfo"), "model name"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_mb: kilobytes(&field(&read("/proc/meminfo"), "MemTotal")).unwrap_or(0) * 1024 / 1_000_000,
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned(),
            callers_go_first: may_go_first(),
        }
    }

    /// BBR leaves a connection four packets in flight for 200 ms of every ten seconds (its state `ProbeRTT`), which the 99th
    /// percentile shows where processors are short.
    pub fn stalls_connections(&self) -> bool {
        self.congestion_control == "bbr"
    }
}

/// `"1234 kB"` as a number.
fn kilobytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse().ok()
}

/// Processor time that a process has used, user and system, all threads.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = cpu_ticks(&text).with_context(|| format!("cannot understand {path}"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Processor time that the whole computer has used so far.
///
/// # Errors
/// When `/proc/stat` cannot be read.
pub fn busy_time() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let ticks = busy_ticks(&text).context("cannot understand /proc/stat")?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// The first line: user, nice, system, idle, iowait, irq, softirq, steal (proc_stat(5)).
fn busy_ticks(stat: &str) -> Option<u64> {
    let fields: Option<Vec<u64>> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .map(|field| field.parse().ok())
        .collect();
    let fields = fields?;
    Some(fields.iter().take(8).sum::<u64>() - fields.get(3)? - fields.get(4)?)
}

/// `utime` and `stime`, the 14th and 15th field; the second one, in parentheses, may contain anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// Memory of a process in megabytes (10^6 bytes): resident now, and at its peak.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident now.
    pub rss_mb: f64,
    /// The most that was resident at a time.
    pub peak_mb: f64,
}

/// Memory of a process.
///
/// # Errors
/// When there is no such process.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        kilobytes(line.trim()).map(|kilobytes| crate::stats::float(kilobytes) * 1024.0 / 1e6)
    };
    let (rss_mb, peak_mb) = (value("VmRSS:"), value("VmHWM:"));
    Ok(Memory { rss_mb: rss_mb.context("no VmRSS")?, peak_mb: peak_mb.context("no VmHWM")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_after_a_name_with_parentheses() {
        let stat = "77 (a) b (c)) S 1 1 1 0 -1 4194560 9 8 7 6 150 50 3 2 20 0 1 0 99 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(200));
        assert_eq!(cpu_ticks("nonsense"), None);
    }

    #[test]
    fn the_computer_is_busy_while_it_is_neither_idle_nor_waiting_for_disks() {
        assert_eq!(busy_ticks("cpu  100 20 30 4000 500 6 7 8 9 10\ncpu0 1 1\n"), Some(171));
        assert_eq!(busy_ticks("cpu 1"), None);
        busy_time().unwrap();
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.rss_mb > 0.1 && memory.peak_mb >= memory.rss_mb);
        cpu_time(std::process::id()).unwrap();
        assert!(Machine::this().cores >= 1 && Machine::this().memory_mb > 0);
    }
}
