//! The harness that the scenarios share.
