//! Generated gRPC code of the Tokenward API, and nothing else.

mod redacted;

/// The encoded descriptors of every service here, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The API that services use.
pub mod v1 {
    tonic::include_proto!("tokenward.v1");
}

/// The API that operators and admins use.
pub mod admin {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("tokenward.admin.v1");
    }
}
