//! The life of keys on the built binary: rotation, retirement, damage, deletion, and crashes in the midst of it.

#![expect(clippy::unwrap_used, reason = "a test whose helpers fail by panicking too")]

mod crashes;
mod damage;
mod deletion;
mod life;
mod measure;
mod migration;
mod servers;
mod tidying;
mod world;
