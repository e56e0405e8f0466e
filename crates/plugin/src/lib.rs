//! One way to register and build any backend.
//!
//! A family (storage, encryption, providers) is a [`Registry`] of [`BackendDef`]s. A definition turns a section of the
//! configuration into a backend in two steps: `prepare` parses and checks and collects every problem; what it returns then
//! builds. Validation is `prepare` with the result dropped, so that both see the same rules. A registry is a value that is
//! passed in: no globals, no link-time magic.

pub mod duration;
mod lenient;
mod problems;
mod registry;
mod section;

pub use problems::{Problem, Problems};
pub use registry::{BackendDef, BuildError, Constraint, Prepared, Registry};
pub use section::{Section, parse_rest, parse_section, read_secret, read_secret_bytes};
