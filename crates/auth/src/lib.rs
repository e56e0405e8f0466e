//! Who is calling: JWT issuers, the built-in issuer, the cache of verified callers
