//! The Rust client that services use: cache, retry, failover
