//! The provider trait, the generic OAuth 2.0 flow and error classes
