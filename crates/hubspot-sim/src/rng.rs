//! Token text from a seedable generator: repeatable runs matter here, secrecy does not.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::SimError;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// SplitMix64 over an atomic counter: no lock, and every draw is distinct.
#[derive(Debug)]
pub(crate) struct Rng(AtomicU64);

impl Rng {
    /// Seeded for repeatable tokens, else from the operating system.
    pub(crate) fn new(seed: Option<u64>) -> Result<Self, SimError> {
        let seed = match seed {
            Some(seed) => seed,
            None => getrandom::u64().map_err(|e| SimError::Start(e.to_string()))?,
        };
        Ok(Self(AtomicU64::new(seed)))
    }

    pub(crate) fn next(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// True with probability `p`.
    pub(crate) fn chance(&self, p: f64) -> bool {
        // 53 bits fit an f64 exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit the mantissa")]
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        unit < p
    }

    /// Text of URL-safe characters that starts with `prefix` and is `len` characters long.
    pub(crate) fn text(&self, prefix: &str, len: usize) -> String {
        let mut out = String::with_capacity(len.max(prefix.len()));
        out.push_str(prefix);
        while out.len() < len {
            let mut bits = self.next();
            for _ in 0..10.min(len - out.len()) {
                out.push(char::from(ALPHABET[(bits & 63) as usize]));
                bits >>= 6;
            }
        }
        out
    }

    /// Text in the shape of a UUID.
    pub(crate) fn uuid(&self) -> String {
        let (a, b) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            b >> 52,
            b & 0xffff_ffff_ffff
        )
    }
}
