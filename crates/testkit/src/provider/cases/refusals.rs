use std::collections::HashSet;
use std::time::Duration;

use tokenward_provider::{ErrorClass, Operation};

use super::{ProviderFixture, Step, call, credentials, operations, refresh, scripted};

/// Every error answer of the vendor has the class and the code that the fixture's table says.
pub async fn every_refusal_has_its_class(fixture: &dyn ProviderFixture) {
    let (vendor, provider) = scripted(fixture, []).await;
    let refusals = fixture.refusals();
    for refusal in &refusals {
        vendor.push(Step::answer(refusal.status, refusal.body.clone()));
        let error = call(&*provider, refusal.operation).await.expect_err("it was refused");
        assert_eq!(error.class, refusal.class, "{refusal:?}: {error}");
        assert_eq!(error.code.as_deref(), refusal.code, "{refusal:?}");
        assert_eq!(error.http_status, Some(refusal.status), "{refusal:?}");
    }
    let shown: HashSet<ErrorClass> = refusals.iter().map(|refusal| refusal.class).collect();
    for class in
        [ErrorClass::GrantDead, ErrorClass::ClientConfig, ErrorClass::ConnectAttempt, ErrorClass::Unexpected]
    {
        assert!(shown.contains(&class), "the fixture shows no {class:?}");
    }
    let misused = |class, operation| {
        refusals.iter().any(|refusal| refusal.class == class && refusal.operation != operation)
    };
    assert!(!misused(ErrorClass::GrantDead, Operation::Refresh), "only a refresh shows that a grant is dead");
    assert!(
        !misused(ErrorClass::ConnectAttempt, Operation::Exchange),
        "only an exchange is an attempt to connect"
    );
}

/// 429 is a rate limit, whatever its body says; `Retry-After` counts as seconds and as a date, and nonsense is ignored.
pub async fn a_rate_limit_honours_retry_after(fixture: &dyn ProviderFixture) {
    let (vendor, provider) = scripted(fixture, []).await;
    for (header, expected) in [
        (Some("17"), Some(Duration::from_secs(17))),
        // The suite's clock stands at 1,700,000,000, which is Tue, 14 Nov 2023 22:13:20 GMT.
        (Some("Tue, 14 Nov 2023 22:14:20 GMT"), Some(Duration::from_secs(60))),
        (Some("Tue, 14 Nov 2023 22:00:00 GMT"), Some(Duration::ZERO)),
        (Some("later"), None),
        (None, None),
    ] {
        for body in [
            "",
            "<html>",
            r#"{"error":"invalid_grant"}"#,
            r#"{"message":"You have reached your rate limit."}"#,
        ] {
            let mut step = Step::answer(429, body);
            if let Some(header) = header {
                step = step.header("retry-after", header);
            }
            vendor.push(step);
            let error = refresh(&*provider).await.expect_err("it was refused");
            assert_eq!((error.class, error.retry_after), (ErrorClass::RateLimited, expected), "{header:?}");
            assert!(error.outcome_is_certain());
        }
    }
}

/// A server error leaves the outcome unknown, even when its body claims a definite error.
pub async fn a_server_error_leaves_the_outcome_unknown(fixture: &dyn ProviderFixture) {
    let (vendor, provider) = scripted(fixture, []).await;
    let dead_grant = fixture.refusals().into_iter().find(|refusal| refusal.class == ErrorClass::GrantDead);
    let dead_grant = dead_grant.expect("the fixture shows one").body;
    for status in [500, 502, 503, 504, 521, 524, 599] {
        for body in ["", "<html>Bad Gateway</html>", &dead_grant] {
            vendor.push(Step::answer(status, body).header("retry-after", "5"));
            let error = refresh(&*provider).await.expect_err("it failed");
            assert_eq!(error.class, ErrorClass::OutcomeUnknown, "{status} {body}");
            assert_eq!(error.retry_after, Some(Duration::from_secs(5)));
            assert!(!error.outcome_is_certain());
        }
    }
}

/// A 4xx without a code of the vendor's (a proxy's, a wrong URL's) is unexpected, and no proof of anything.
pub async fn a_bare_refusal_never_marks_a_grant_dead(fixture: &dyn ProviderFixture) {
    let (vendor, provider) = scripted(fixture, []).await;
    let spring = r#"{"status":403,"error":"Not Allowed","path":"/oauth"}"#;
    for operation in operations(&*provider) {
        for status in [400, 401, 403, 404, 405, 408, 410] {
            for body in
                ["", "<html>Forbidden</html>", "{}", r#"{"error":7}"#, r#"{"error":"invalid_grant""#, spring]
            {
                vendor.push(Step::answer(status, body));
                let error = call(&*provider, operation).await.expect_err("it was refused");
                assert_eq!(error.class, ErrorClass::Unexpected, "{operation:?} {status} {body}");
                assert_eq!(error.code, None);
                assert!(!error.outcome_is_certain(), "{status} {body}");
            }
        }
    }
}

/// A credential probe whose answer proves nothing says that it cannot tell.
pub async fn a_credential_probe_that_cannot_tell_says_so(fixture: &dyn ProviderFixture) {
    for step in [
        Step::answer(500, ""),
        Step::answer(401, ""),
        Step::answer(429, ""),
        Step::answer(200, "<html>"),
        Step::HangUpAfterReading,
    ] {
        let (_vendor, provider) = scripted(fixture, [step.clone(), step.clone()]).await;
        assert_eq!(provider.check_credentials(&credentials()).await, None, "{step:?}");
    }
}
