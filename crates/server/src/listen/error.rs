//! Why the server cannot listen.

use std::io;
use std::path::PathBuf;

use super::Address;

/// Why the server cannot listen, or stopped listening. Each message names the option.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Others could read what goes over the wire.
    #[error(
        "listen.{name}.address: others can reach {address} and it has no TLS: give cert_file and key_file, listen on 127.0.0.1, or \
         set allow_plaintext = true"
    )]
    Plaintext {
        /// The listener.
        name: &'static str,
        /// Its address.
        address: Address,
    },
    /// Another program listens there.
    #[error(
        "listen.{name}.address: {address} is in use by another program: stop that, or choose another address"
    )]
    InUse {
        /// The listener.
        name: &'static str,
        /// Its address.
        address: Address,
    },
    /// The address cannot be listened on for another reason.
    #[error("listen.{name}.address: cannot listen on {address}")]
    Bind {
        /// The listener.
        name: &'static str,
        /// Its address.
        address: Address,
        /// What the operating system said.
        source: io::Error,
    },
    /// A certificate or key cannot be read.
    #[error("listen.{name}.{option}: cannot read {path}")]
    ReadFile {
        /// The listener.
        name: &'static str,
        /// The option: `cert_file` or `key_file`.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A certificate or key is not what it should be.
    #[error("listen.{name}.{option}: {path}: {problem}")]
    Certificate {
        /// The listener.
        name: &'static str,
        /// The option: `cert_file` or `key_file`.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never part of the key.
        problem: String,
    },
    /// A thread cannot be started.
    #[error("cannot start the thread {name}")]
    Thread {
        /// The thread.
        name: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server cannot be put together: a bug.
    #[error("cannot set up the {name} listener")]
    Setup {
        /// The listener.
        name: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A listener stopped although nobody asked it to.
    #[error("the {name} listener stopped unexpectedly")]
    Stopped {
        /// The listener.
        name: &'static str,
    },
}
