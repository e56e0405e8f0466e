//! gRPC and HTTP on top of the broker
