//! Ports that must be known before anybody listens on them.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range from which systems take ports for outgoing connections and for port 0.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port of this machine that nobody listens on. Processes of tests start at different places, so that they do not take
/// each other's.
pub fn free_port() -> u16 {
    let process = std::process::id().wrapping_mul(31);
    for _ in 0..COUNT {
        let offset = process.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset).expect("the range ends below 65536");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port from {FIRST} on is free");
}
