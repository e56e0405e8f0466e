//! What is measured, one part a file.

pub mod cold;
pub mod flight;
pub mod keys;
pub mod many;
pub mod warm;
