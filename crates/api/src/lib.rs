//! Generated gRPC code of the Tokenward API, and nothing else
