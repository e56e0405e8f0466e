//! Ports that stay a server's own while it is down.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Below the range from which systems take ports for outgoing connections, and apart from that of other tests.
const FIRST: u32 = 12_000;
const COUNT: u32 = 8_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A loopback address that nobody listens on. Harnesses start at different places, so that they do not take each other's.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Result<SocketAddr> {
    let process = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let offset = process.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port from {FIRST} on is free")
}
