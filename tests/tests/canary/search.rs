//! Searches bytes for secrets: whole or a piece of them, plain or in the encodings that programs put bytes into.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

/// Secrets are looked for in pieces of this size, so that a log line that cuts a secret short is found out too.
const PIECE: usize = 20;
/// The search looks at so many bytes at a time; shorter secrets are refused.
const KEY: usize = 8;

/// What to look for.
#[derive(Default)]
pub(crate) struct Secrets {
    names: BTreeSet<String>,
    /// By their first bytes: whole needles, with the secret's name.
    needles: HashMap<[u8; KEY], Vec<(Vec<u8>, String)>>,
    sample: Vec<u8>,
}

impl Secrets {
    /// Looks for this one, too.
    pub(crate) fn add(&mut self, name: &str, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref();
        assert!(secret.len() >= KEY, "{name} is too short to be told from chance");
        self.names.insert(format!("{name}: {}", String::from_utf8_lossy(secret)));
        if self.sample.is_empty() {
            secret.clone_into(&mut self.sample);
        }
        for piece in pieces(secret) {
            for needle in forms(piece) {
                let Some(key) = needle.first_chunk::<KEY>() else { continue };
                let same_start = self.needles.entry(*key).or_default();
                if !same_start.iter().any(|(bytes, _)| *bytes == needle) {
                    same_start.push((needle, name.to_owned()));
                }
            }
        }
    }

    /// How many different secrets there are.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// One of them.
    pub(crate) fn sample(&self) -> &[u8] {
        &self.sample
    }

    /// The names of the secrets that occur, with what surrounds them.
    pub(crate) fn find(&self, haystack: &[u8]) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = Vec::new();
        for (at, window) in haystack.windows(KEY).enumerate() {
            let Some(needles) = window.first_chunk::<KEY>().and_then(|key| self.needles.get(key)) else {
                continue;
            };
            for (needle, name) in needles {
                if haystack[at..].starts_with(needle) && found.iter().all(|(known, _)| known != name) {
                    let around = &haystack[at.saturating_sub(120)..haystack.len().min(at + 60)];
                    found.push((name.clone(), String::from_utf8_lossy(around).into_owned()));
                }
            }
        }
        found
    }
}

/// Cuts a secret; the last piece overlaps the one before, so that each has the full size.
fn pieces(secret: &[u8]) -> Vec<&[u8]> {
    if secret.len() <= PIECE {
        return vec![secret];
    }
    let last = secret.len() - PIECE;
    (0..last).step_by(PIECE).chain([last]).map(|start| &secret[start..start + PIECE]).collect()
}

/// A piece as it is, as hexadecimal, Base64, percent-encoding, and as Rust's `Debug` shows bytes.
fn forms(piece: &[u8]) -> BTreeSet<Vec<u8>> {
    let hex = hex(piece);
    let list: Vec<String> = piece.iter().map(u8::to_string).collect();
    let mut forms: BTreeSet<Vec<u8>> = [
        piece.to_vec(),
        hex.to_uppercase().into(),
        hex.into(),
        list.join(", ").into(),
        percent(piece).into(),
    ]
    .into();
    // Where a piece stands in a Base64 text shifts it by 0, 1 or 2 bytes; the letters that its neighbours share are left out.
    for shift in 0..3 {
        let padded = [&[0; 2][..shift], piece].concat();
        let letters = (shift * 8).div_ceil(6)..(padded.len() * 8) / 6;
        for text in [BASE64_STANDARD_NO_PAD.encode(&padded), BASE64_URL_SAFE_NO_PAD.encode(&padded)] {
            forms.insert(text.as_bytes()[letters.clone()].to_vec());
        }
    }
    forms
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn percent(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// A secret in the ways in which it might leave.
pub(crate) fn disguises(secret: &[u8]) -> Vec<Vec<u8>> {
    let within = |before: &str| BASE64_STANDARD_NO_PAD.encode([before.as_bytes(), secret, b"after"].concat());
    vec![
        secret.to_vec(),
        secret[..secret.len() * 2 / 3].to_vec(),
        hex(secret).into(),
        hex(secret).to_uppercase().into(),
        percent(secret).into(),
        format!("{secret:?}").into(),
        format!("{:?}", String::from_utf8_lossy(secret)).into(),
        BASE64_STANDARD_NO_PAD.encode(secret).into(),
        BASE64_URL_SAFE_NO_PAD.encode(secret).into(),
        within("").into(),
        within("a").into(),
        within("ab").into(),
    ]
}

#[test]
fn a_secret_is_found_in_every_disguise_and_not_where_it_is_not() {
    let secrets = ["hunter2-hunter2-hunter2-hunter2+/=", "a&b c%d?e", "12345678"];
    for secret in secrets {
        let mut wanted = Secrets::default();
        wanted.add("it", secret);
        for disguise in
            disguises(secret.as_bytes()).into_iter().filter(|disguise| disguise.len() >= secret.len())
        {
            let haystack = [b"before=".as_slice(), &disguise, b"."].concat();
            assert_eq!(wanted.find(&haystack).len(), 1, "{}", String::from_utf8_lossy(&haystack));
        }
        assert!(wanted.find(b"a log line about nothing in particular, of some length").is_empty());
    }
}
