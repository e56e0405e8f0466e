//! Sealing and opening a token with a data key that is at hand: `cargo bench -p tokenward-crypto`.
#![expect(clippy::expect_used, reason = "a measurement that cannot be made is of no use")]

use divan::{Bencher, black_box};
use tokenward_crypto::{DataKey, DataKeyMaterial, SealContext};

const CONTEXT: SealContext<'_> = SealContext {
    installation: "01j9zq6v7w8x9y0z1a2b3c4d5e",
    scope: "acme-corporation",
    kind: "connection",
    record: "con_01j9zq6v7w8x9y0z1a2b3c4d5e",
    field: "access_token",
    fence: Some(42),
};

/// As long as a token of HubSpot.
const TOKEN: [u8; 300] = [b'x'; 300];

fn key() -> DataKey {
    DataKey::new(1, &DataKeyMaterial::from_bytes([7; 32]))
}

fn main() {
    divan::main();
}

#[divan::bench]
fn open(bencher: Bencher<'_, '_>) {
    let key = key();
    let sealed = key.seal(&CONTEXT, &TOKEN);
    bencher.bench(|| key.open(black_box(&CONTEXT), black_box(&sealed)).expect("it opens"));
}

#[divan::bench]
fn seal(bencher: Bencher<'_, '_>) {
    let key = key();
    bencher.bench(|| key.seal(black_box(&CONTEXT), black_box(&TOKEN)));
}
