use std::net::SocketAddr;
use std::time::Duration;

use tokenward_provider::{ErrorClass, ProviderError};
use tokio::net::TcpSocket;

use super::{
    ProviderFixture, SAMPLE, ScriptedVendor, Setup, Step, build, call, operations, refresh, scripted,
};

/// A redirect is an unexpected answer; its target sees nothing.
pub async fn a_redirect_is_not_followed(fixture: &dyn ProviderFixture) {
    let elsewhere = ScriptedVendor::start([Step::answer(200, fixture.token_body(&SAMPLE))]).await;
    let (vendor, provider) = scripted(fixture, []).await;
    for status in [301, 302, 303, 307, 308] {
        vendor.push(Step::answer(status, "").header("location", elsewhere.url()));
        let error = refresh(&*provider).await.expect_err("a redirect is no answer");
        assert_eq!((error.class, error.http_status), (ErrorClass::Unexpected, Some(status)));
        assert!(!error.outcome_is_certain());
    }
    assert_eq!(elsewhere.received().len(), 0);
    assert_eq!(vendor.received().len(), 5);
}

/// When nobody listens, nothing was sent.
pub async fn a_refused_connection_was_not_sent(fixture: &dyn ProviderFixture) {
    // Bound and not listening: the port is taken, and refuses.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let port = socket.local_addr().expect("its address").port();
    let provider = build(fixture, &Setup::new(format!("http://127.0.0.1:{port}"))).await;
    for operation in operations(&*provider) {
        let error = call(&*provider, operation).await.expect_err("nobody listens");
        assert_eq!(error.class, ErrorClass::NotSent, "{error}");
        assert!(error.outcome_is_certain());
    }
}

/// When TLS fails, nothing was sent.
pub async fn a_failed_tls_handshake_was_not_sent(fixture: &dyn ProviderFixture) {
    let vendor = ScriptedVendor::start([Step::HangUpBeforeReading, Step::answer(200, "")]).await;
    let provider = build(fixture, &Setup::new(format!("https://127.0.0.1:{}", vendor.port()))).await;
    for _ in 0..2 {
        let error = refresh(&*provider).await.expect_err("there is no TLS");
        assert_eq!(error.class, ErrorClass::NotSent, "{error}");
    }
    assert_eq!(vendor.received().len(), 0);
}

/// A vendor that hangs up may have done what was asked; the request is not sent again.
pub async fn a_hang_up_leaves_the_outcome_unknown(fixture: &dyn ProviderFixture) {
    for (step, read) in [(Step::HangUpBeforeReading, 0), (Step::HangUpAfterReading, 1)] {
        let spare = Step::answer(200, fixture.token_body(&SAMPLE));
        let (vendor, provider) = scripted(fixture, [step.clone(), spare]).await;
        let error = refresh(&*provider).await.expect_err("the vendor hung up");
        assert_unknown(&error, &format!("{step:?}"));
        assert_eq!(vendor.received().len(), read, "{step:?}: not sent again");
    }
}

/// A vendor that does not answer in time may have done what was asked.
pub async fn a_timeout_leaves_the_outcome_unknown(fixture: &dyn ProviderFixture) {
    let headers_only = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
    let vendor = ScriptedVendor::start([Step::Stall]).await;
    let timeout = Duration::from_millis(300);
    let provider = build(fixture, &Setup { timeout, ..Setup::new(vendor.url()) }).await;
    assert_eq!(provider.call_timeout(), timeout);
    let error = refresh(&*provider).await.expect_err("the vendor stalls");
    assert_unknown(&error, "stall");
    assert_eq!(vendor.received().len(), 1);
    vendor.push(Step::Raw(headers_only.into()));
    let error = refresh(&*provider).await.expect_err("the vendor stops in the middle");
    assert_unknown(&error, "headers only");
}

/// A success that cannot be read (empty, cut off, too large, not JSON, without a token) may have issued a token.
pub async fn an_unreadable_success_leaves_the_outcome_unknown(fixture: &dyn ProviderFixture) {
    let body = fixture.token_body(&SAMPLE);
    let half = &body[..body.len() / 2];
    let huge = format!("{}{}", " ".repeat(10 * 1024 * 1024), body);
    let cut_off = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{half}", body.len());
    let chunked =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len());
    let (vendor, provider) = scripted(fixture, []).await;
    for step in [
        Step::answer(200, ""),
        Step::answer(204, ""),
        Step::answer(200, "<html>Welcome</html>"),
        Step::answer(200, "[]"),
        Step::answer(200, "{}"),
        Step::answer(200, r#"{"access_token":""}"#),
        Step::answer(200, r#"{"access_token":7}"#),
        Step::answer(200, half),
        Step::answer(200, huge),
        Step::answer(200, "[".repeat(50_000)),
        Step::Raw(cut_off.into()),
        Step::Raw(chunked.into()),
        Step::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        Step::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n".to_vec()),
    ] {
        let shown = format!("{step:.60?}").chars().take(120).collect::<String>();
        vendor.push(step);
        let error = refresh(&*provider).await.expect_err("there is no token to be had");
        assert_unknown(&error, &shown);
    }
}

/// An address inside the operator's network is refused, written as a number or as a name.
pub async fn a_private_address_is_not_called(fixture: &dyn ProviderFixture) {
    let vendor = ScriptedVendor::start([]).await;
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1"] {
        let base_url = format!("http://{host}:{}", vendor.port());
        let setup = Setup { allow_private_addresses: false, ..Setup::new(base_url) };
        match fixture.build(&setup).await {
            Err(problems) => assert!(problems.contains("allow_private_addresses"), "{host}: {problems}"),
            Ok(provider) => {
                let error = refresh(&*provider).await.expect_err("it must not be called");
                assert_eq!(error.class, ErrorClass::NotSent, "{host}: {error}");
            }
        }
    }
    assert_eq!(vendor.received().len(), 0);
}

fn assert_unknown(error: &ProviderError, what: &str) {
    assert_eq!(error.class, ErrorClass::OutcomeUnknown, "{what}: {error}");
    assert!(!error.outcome_is_certain(), "{what}");
}
