use std::sync::Arc;
use std::time::Duration;

use tokenward_provider::{ErrorClass, ExpiresIn, TokenHint};
use tokenward_types::{AccountId, Clock, ExposeSecret, ManualClock, Scopes, Timestamp};

use super::{
    ACCESS_TOKEN, ProviderFixture, SAMPLE, SampleToken, ScriptedVendor, Setup, Step, build, credentials,
    exchange, refresh, scripted, secret,
};

/// A token answer's tokens, lifetime, scopes and account are read.
pub async fn a_token_answer_is_read_whole(fixture: &dyn ProviderFixture) {
    let long = "x".repeat(8 * 1024);
    for sample in [SAMPLE, SampleToken { access_token: &long, ..SAMPLE }] {
        let answer = || Step::answer(200, fixture.token_body(&sample));
        let (_vendor, provider) = scripted(fixture, [answer(), answer()]).await;
        for answer in [exchange(&*provider).await, refresh(&*provider).await] {
            let answer = answer.expect("tokens");
            assert_eq!(answer.access_token.expose_secret(), sample.access_token);
            let refresh_token = answer.refresh_token.as_ref().map(ExposeSecret::expose_secret);
            assert_eq!(refresh_token, sample.refresh_token);
            assert_eq!(answer.expires_in, ExpiresIn::Given(Duration::from_secs(1800)));
            assert_eq!(answer.scopes, Scopes::new(["a", "b"]).ok());
            assert_eq!(answer.account, AccountId::parse("4711").ok());
        }
    }
}

/// What a token answer leaves out is absent, and nothing else is lost for it.
pub async fn a_token_answer_with_little_in_it_is_read(fixture: &dyn ProviderFixture) {
    let sample = SampleToken { refresh_token: None, expires_in: None, scopes: None, account: None, ..SAMPLE };
    let (_vendor, provider) = scripted(fixture, [Step::answer(200, fixture.token_body(&sample))]).await;
    let answer = refresh(&*provider).await.expect("a token");
    assert_eq!(answer.access_token.expose_secret(), SAMPLE.access_token);
    assert_eq!(answer.expires_in, ExpiresIn::Missing);
    assert_eq!((answer.scopes, answer.account), (None, None));
}

/// A refresh answered without a refresh token gives `None` there: the one in use stays.
pub async fn a_refresh_answered_without_a_refresh_token_gives_none(fixture: &dyn ProviderFixture) {
    let without = fixture.token_body(&SampleToken { refresh_token: None, ..SAMPLE });
    let empty = fixture.token_body(&SampleToken { refresh_token: Some(""), ..SAMPLE });
    let (_vendor, provider) = scripted(fixture, [Step::answer(200, without), Step::answer(200, empty)]).await;
    for _ in 0..2 {
        assert!(refresh(&*provider).await.expect("a token").refresh_token.is_none());
    }
}

/// A lifetime that is missing or nonsense is reported as such, and the tokens are kept.
pub async fn a_bad_lifetime_never_loses_the_tokens(fixture: &dyn ProviderFixture) {
    let (vendor, provider) = scripted(fixture, []).await;
    for (expires_in, expected) in [
        (None, ExpiresIn::Missing),
        (Some("null"), ExpiresIn::Missing),
        (Some("0"), ExpiresIn::Invalid),
        (Some("-1800"), ExpiresIn::Invalid),
        (Some("99999999999999"), ExpiresIn::Invalid),
        (Some("\"soon\""), ExpiresIn::Invalid),
        (Some("{}"), ExpiresIn::Invalid),
        (Some("\"1800\""), ExpiresIn::Given(Duration::from_secs(1800))),
    ] {
        vendor.push(Step::answer(200, fixture.token_body(&SampleToken { expires_in, ..SAMPLE })));
        let answer = refresh(&*provider).await.expect("the tokens are kept");
        assert_eq!(answer.expires_in, expected, "{expires_in:?}");
        assert_eq!(answer.access_token.expose_secret(), SAMPLE.access_token);
        assert!(answer.refresh_token.is_some());
    }
}

/// The time that is reported is that of sending, however long the vendor takes.
pub async fn the_time_of_sending_is_reported(fixture: &dyn ProviderFixture) {
    let clock = ManualClock::new(Timestamp::from_secs(1_700_000_000));
    let vendor = ScriptedVendor::start([Step::answer(200, fixture.token_body(&SAMPLE))]).await;
    let vendors_clock = clock.clone();
    vendor.on_request(move || vendors_clock.advance(Duration::from_secs(7)));
    let setup = Setup { clock: Arc::new(clock.clone()), ..Setup::new(vendor.url()) };
    let provider = build(fixture, &setup).await;
    let answer = refresh(&*provider).await.expect("tokens");
    assert_eq!(answer.requested_at, Timestamp::from_secs(1_700_000_000));
    assert_eq!(clock.now(), Timestamp::from_secs(1_700_000_007), "the vendor did take its time");
}

/// Introspection tells a living token, with its life, scopes and account, from a dead one.
pub async fn introspection_tells_living_from_dead_tokens(fixture: &dyn ProviderFixture) {
    let living = Step::answer(200, fixture.introspection_body());
    let dead = Step::answer(200, r#"{"active":false}"#);
    let odd = Step::answer(200, r#"{"active":"maybe"}"#);
    let (vendor, provider) = scripted(fixture, [living, dead, odd]).await;
    let token = secret(ACCESS_TOKEN);
    if !provider.info().introspection {
        let error =
            provider.introspect(&credentials(), &token, TokenHint::AccessToken).await.expect_err("none");
        assert_eq!(error.class, ErrorClass::NotSent);
        return;
    }
    let living =
        provider.introspect(&credentials(), &token, TokenHint::AccessToken).await.expect("an answer");
    assert!(living.active);
    assert_eq!(living.expires_in, Some(Duration::from_secs(3600)));
    assert_eq!(living.scopes, Scopes::new(["a", "b"]).ok());
    assert_eq!(living.account, AccountId::parse("4711").ok());
    let dead = provider.introspect(&credentials(), &token, TokenHint::RefreshToken).await.expect("an answer");
    assert!(!dead.active && dead.scopes.is_none() && dead.expires_in.is_none());
    let odd =
        provider.introspect(&credentials(), &token, TokenHint::AccessToken).await.expect_err("no verdict");
    assert_eq!(odd.class, ErrorClass::OutcomeUnknown);
    let hints: Vec<_> = vendor.received().iter().map(|request| request.field("token_type_hint")).collect();
    let (access, refresh) = (Some("access_token".to_owned()), Some("refresh_token".to_owned()));
    assert_eq!(hints, [access.clone(), refresh, access]);
}

/// Any 2xx means revoked: vendors answer the same for a token that they do not know, with or without a body.
pub async fn revocation_takes_any_success_for_an_answer(fixture: &dyn ProviderFixture) {
    let (vendor, provider) = scripted(fixture, []).await;
    for step in [Step::answer(200, ""), Step::answer(204, ""), Step::answer(200, "<html>ok</html>")] {
        vendor.push(step);
        let result = provider.revoke(&credentials(), &secret(super::REFRESH_TOKEN)).await;
        if provider.info().revocation {
            assert_eq!(result, Ok(()));
        } else {
            assert_eq!(result.map_err(|error| error.class), Err(ErrorClass::NotSent));
        }
    }
}
