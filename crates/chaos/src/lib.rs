//! The harness that tries to make real servers lose grants: it starts them on a real database with a rotating vendor, kills,
//! freezes and cuts off everything, and compares what is left with the vendor's own books. `cargo xtask chaos` builds and
//! runs it.

pub mod callers;
pub mod canary;
pub mod check;
pub mod customers;
pub mod database;
pub mod history;
pub mod inject;
pub mod judge;
pub mod options;
pub mod people;
pub mod plan;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod replica;
pub mod report;
pub mod run;
pub mod scrape;
pub mod setup;
pub mod sim;
pub mod spans;
pub mod time;
pub mod truth;
pub mod verdict;
