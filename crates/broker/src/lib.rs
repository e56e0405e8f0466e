//! The use cases: connect, get a token, refresh, rotate; knows traits, never a backend
