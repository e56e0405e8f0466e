//! The key-encryption trait, the envelope format and data keys
