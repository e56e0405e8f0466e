//! The client against a scripted server, over real sockets.

mod cache;
mod caller_token;
mod example;
mod failover;
mod fake;
mod http_users;
mod retry;
mod tls;
