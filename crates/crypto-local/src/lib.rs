//! AES-256-GCM keyring in a file or an environment variable
