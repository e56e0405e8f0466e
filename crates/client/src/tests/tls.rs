use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::Identity;

use super::fake::{FakeServer, FakeTime, client, token};
use crate::{BuildError, ErrorKind, TokenRequest};

/// A certificate authority's certificate, and a server's for `name` by it.
fn certificates(name: &str) -> (String, Identity) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    (ca.pem(), Identity::from_pem(certificate.pem(), key.serialize_pem()))
}

#[tokio::test]
async fn a_server_is_trusted_by_the_given_authority_alone() {
    let time = FakeTime::new(0.0);
    let (ca, identity) = certificates("tokenward.internal");
    let server = FakeServer::start_on("127.0.0.1:0".parse().unwrap(), Some(identity)).await;
    server.script.otherwise(token("secret", 1800));
    let folder = tempfile::tempdir().unwrap();
    let builder =
        || client(&time).address(format!("https://{}", server.address)).server_name("tokenward.internal");
    let file = folder.path().join("ca.pem");

    std::fs::write(&file, ca).unwrap();
    let trusting = builder().ca_file(&file).build().await.unwrap();
    assert_eq!(trusting.get_token(&TokenRequest::new("acme")).await.unwrap().expose_secret(), "secret");

    let by_another_name = builder().server_name("other.internal").ca_file(&file).build().await.unwrap();
    let error = by_another_name.get_token(&TokenRequest::new("acme")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    std::fs::write(&file, certificates("tokenward.internal").0).unwrap();
    let distrusting = builder().ca_file(&file).build().await.unwrap();
    assert!(distrusting.get_token(&TokenRequest::new("acme")).await.is_err());
    assert_eq!(server.script.calls(), 1, "no caller token reaches a server that is not trusted");

    let missing = builder().ca_file(folder.path().join("none.pem")).build().await.unwrap_err();
    assert!(matches!(missing, BuildError::CaFile { .. }));
}
