//! The cases, a file per aggregate.

pub mod access;
pub mod atomicity;
pub mod budgets;
pub mod changes;
pub mod checks;
pub mod client_secrets;
pub mod connect_flow;
pub mod connections;
pub mod consents;
pub mod disconnects;
pub mod installation;
pub mod isolation;
pub mod keks;
pub mod key_jobs;
pub mod keys;
pub mod leases;
pub mod oauth_clients;
pub mod pending_grants;
pub mod refreshes;
pub mod replicas;
pub mod sealed;
pub mod tenants;
