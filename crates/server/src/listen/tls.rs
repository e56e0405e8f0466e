//! TLS from a certificate and a key file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tonic::transport::{Identity, ServerTlsConfig};

use super::ListenError;

/// How long a TLS handshake may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A certificate chain and its key, PEM. They are read at start; a new certificate needs a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, then those that lead to its authority.
    pub cert_file: PathBuf,
    /// The private key: PKCS #8, PKCS #1 or SEC 1.
    pub key_file: PathBuf,
}

/// What was read from the files, checked.
#[derive(Clone)]
pub(crate) struct Tls {
    identity: Identity,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads and checks the files of a listener.
    pub(crate) fn load(name: &'static str, files: &TlsFiles) -> Result<Self, ListenError> {
        let cert_pem = read(name, "cert_file", &files.cert_file)?;
        let key_pem = read(name, "key_file", &files.key_file)?;
        let problem = |option, path: &Path, problem: String| ListenError::Certificate {
            name,
            option,
            path: path.to_owned(),
            problem,
        };
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&cert_pem).collect::<Result<_, _>>().map_err(|error| {
                problem("cert_file", &files.cert_file, format!("is not a PEM certificate: {error}"))
            })?;
        if chain.is_empty() {
            return Err(problem("cert_file", &files.cert_file, "has no certificate in it".to_owned()));
        }
        // The parser's own words could quote the key.
        let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| {
            problem("key_file", &files.key_file, "has no private key in it that can be read".to_owned())
        })?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ListenError::Setup { name, source: error.into() })?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| {
                problem("key_file", &files.key_file, format!("does not go with the certificate: {error}"))
            })?;
        Ok(Self { identity: Identity::from_pem(cert_pem, key_pem), config: Arc::new(config) })
    }

    /// For the gRPC listeners.
    pub(crate) fn grpc(&self) -> ServerTlsConfig {
        ServerTlsConfig::new().identity(self.identity.clone()).timeout(HANDSHAKE_TIMEOUT)
    }

    /// For the HTTP listeners.
    pub(crate) fn http(&self) -> TlsAcceptor {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

fn read(name: &'static str, option: &'static str, path: &Path) -> Result<Vec<u8>, ListenError> {
    std::fs::read(path).map_err(|source| ListenError::ReadFile {
        name,
        option,
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(cert: &str, key: &str) -> Result<Tls, ListenError> {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles { cert_file: folder.path().join("cert"), key_file: folder.path().join("key") };
        std::fs::write(&files.cert_file, cert).unwrap();
        std::fs::write(&files.key_file, key).unwrap();
        Tls::load("public", &files)
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_certificate_and_its_key_load() {
        let (cert, key) = pair();
        assert!(load(&cert, &key).is_ok());
    }

    #[test]
    fn files_that_cannot_be_used_are_named_without_the_key() {
        let (cert, key) = pair();
        let (_, other_key) = pair();
        for (cert, key, expected) in [
            ("", &*key, "listen.public.cert_file"),
            (&*cert, "", "listen.public.key_file"),
            (&*cert, &*cert, "listen.public.key_file"),
            (&*cert, &*other_key, "listen.public.key_file"),
        ] {
            let error = load(cert, key).err().unwrap();
            assert!(error.to_string().starts_with(expected), "{error}");
            let body = other_key.lines().nth(1).unwrap();
            assert!(!format!("{error:?}").contains(body));
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let files = TlsFiles { cert_file: "/nowhere/cert".into(), key_file: "/nowhere/key".into() };
        let error = Tls::load("admin", &files).err().unwrap();
        assert_eq!(error.to_string(), "listen.admin.cert_file: cannot read /nowhere/cert");
    }
}
