//! The cache of verdicts: what it keeps, and what makes it forget.

use std::sync::Arc;
use std::time::Duration;

use tokenward_auth::{AuthErrorReason, AuthSettings, Authenticator};
use tokenward_types::Principal;

use crate::support::*;

#[tokio::test]
async fn a_token_is_verified_once() {
    let corp = Corp::start().await;
    let token = corp.token(&claims("billing"));
    assert!(corp.auth.cached(&token).is_none(), "nothing is known before the first verification");
    let first = corp.auth.authenticate(&token).await.unwrap();
    assert!(Arc::ptr_eq(&first, &corp.auth.cached(&token).unwrap()));
    assert!(Arc::ptr_eq(&first, &corp.auth.authenticate(&token).await.unwrap()), "not verified again");
    assert!(corp.auth.cached(&corp.token(&claims("shipping"))).is_none());
}

#[tokio::test]
async fn a_verdict_ends_with_its_token() {
    let corp = Corp::start().await;
    let token = corp.token(&claims("billing"));
    corp.auth.authenticate(&token).await.unwrap();
    corp.clock.advance(Duration::from_secs(3629));
    assert!(corp.auth.cached(&token).is_some(), "accepted within the leeway, as at verification");
    corp.clock.advance(SECOND);
    assert!(corp.auth.cached(&token).is_none());
    let error = corp.auth.authenticate(&token).await.unwrap_err();
    assert_eq!(error.reason(), AuthErrorReason::Expired);
}

#[tokio::test]
async fn a_block_counts_at_once_and_for_that_principal_alone() {
    let corp = Corp::start().await;
    let (billing, shipping) = (corp.token(&claims("billing")), corp.token(&claims("shipping")));
    corp.auth.authenticate(&billing).await.unwrap();
    corp.auth.authenticate(&shipping).await.unwrap();
    let principal = Principal::parse("corp:billing").unwrap();

    corp.auth.block(&principal);
    assert!(corp.auth.cached(&billing).is_none());
    assert!(corp.auth.cached(&shipping).is_some());
    for token in [&billing, &corp.token(&with(claims("billing"), "jti", "another token".into()))] {
        let error = corp.auth.authenticate(token).await.unwrap_err();
        assert_eq!(error.reason(), AuthErrorReason::Blocked);
        assert!(corp.auth.cached(token).is_none());
    }

    corp.auth.unblock(&principal);
    assert!(corp.auth.authenticate(&billing).await.is_ok());
    corp.auth.set_blocked(vec![principal]);
    assert!(corp.auth.cached(&billing).is_none());
    corp.auth.set_blocked(vec![]);
    assert!(corp.auth.cached(&billing).is_some());
}

#[tokio::test]
async fn a_block_during_a_verification_counts() {
    let corp = Corp::start().await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let next = Signer::ed25519();
    let body = jwks(&[corp.signer.jwk("k1"), next.jwk("k2")]);
    corp.server.answer(Answer::Held(Arc::clone(&gate), body));
    corp.clock.advance(30 * SECOND);
    let token = next.token("EdDSA", "k2", &claims("billing"));
    let meanwhile = async {
        corp.server.arrived.notified().await;
        corp.server.arrived.notified().await;
        corp.auth.block(&Principal::parse("corp:billing").unwrap());
        gate.notify_one();
    };
    let (verdict, ()) = tokio::join!(corp.auth.authenticate(&token), meanwhile);
    assert_eq!(verdict.unwrap_err().reason(), AuthErrorReason::Blocked);
    assert!(corp.auth.cached(&token).is_none());
}

#[tokio::test]
async fn the_cache_is_bounded_and_correct_without_room() {
    let corp = Corp::start().await;
    let config = crate::support::corp(&corp.server.url());
    let settings = AuthSettings { cache_capacity: 0 };
    let auth = Authenticator::new(vec![config], None, Arc::new(corp.clock.clone()), settings).unwrap();
    for caller in 0..50 {
        assert!(auth.authenticate(&corp.token(&claims(&format!("s{caller}")))).await.is_ok());
    }
}
