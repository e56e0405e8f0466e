//! Typed configuration: a TOML file, then the environment (`TOKENWARD__SECTION__KEY`), then flags; the later wins.
//!
//! [`load`] finds every problem at once: unknown keys and wrong types in all sections, then what does not fit together.
//! The parts that belong to backends (storage, encryption, providers) stay opaque here; the backends check them.

mod address;
mod check;
mod load;
mod process;
mod sections;
mod urls;

pub use address::{Address, InvalidAddress};
pub use load::{Sources, load};
pub use process::{Log, LogFormat, Server};
pub use sections::{
    Backend, Broker, BuiltinIssuer, Config, GrpcListener, HttpListener, Issuer, Listen, Public, Transport,
};
