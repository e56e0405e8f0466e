//! gRPC and HTTP on top of the broker.

mod admission;
pub mod error_table;
mod grpc;
pub mod http;
mod listen;

pub use listen::{
    Address, Addresses, BoundServer, Limits, ListenError, ListenerConfig, Place, ServerConfig, ServerParts,
    TlsFiles, bind, places,
};
