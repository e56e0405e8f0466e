//! Rotating refresh tokens: grace with siblings, grace with superseding, strict.

use tokenward_hubspot_sim::{AfterWindow, FamilyEnd, GraceStyle, Rotation};

use crate::support::{HUB, start};

const BAD: &str = "BAD_REFRESH_TOKEN";

fn grace(style: GraceStyle, after_window: AfterWindow) -> Rotation {
    Rotation::Grace { style, window_secs: 60, after_window }
}

#[tokio::test]
async fn siblings_all_live_when_a_spent_token_comes_again_within_the_window() {
    let f = start().await;
    f.rotate(grace(GraceStyle::Sibling, AfterWindow::KillFamily));
    let first = f.grant().refresh_token;
    let a = f.spend(&first).await.unwrap();
    f.handle().advance_secs(60);
    let b = f.spend(&first).await.unwrap();
    assert!(a != b && a != first);
    assert!(f.handle().is_refresh_token_live(&a) && f.handle().is_refresh_token_live(&b));
    assert!(!f.handle().is_refresh_token_live(&first));
    assert!(f.spend(&a).await.is_ok());
    assert!(f.spend(&b).await.is_ok());
    let view = f.handle().grants(HUB).remove(0);
    assert_eq!((view.grace_replays, view.reuse_detected, view.ended), (1, 0, None));
}

#[tokio::test]
async fn superseding_leaves_the_newest_child_alone_alive() {
    let f = start().await;
    f.rotate(grace(GraceStyle::Supersede, AfterWindow::KillFamily));
    let first = f.grant().refresh_token;
    let a = f.spend(&first).await.unwrap();
    let b = f.spend(&first).await.unwrap();
    assert!(!f.handle().is_refresh_token_live(&a) && f.handle().is_refresh_token_live(&b));
    assert_eq!(f.spend(&a).await.unwrap_err(), BAD);
    // A superseded token is refused without harm to the family.
    assert!(f.spend(&b).await.is_ok());
}

#[tokio::test]
async fn a_spent_token_after_its_window_is_reuse_and_ends_the_family() {
    let f = start().await;
    f.rotate(grace(GraceStyle::Sibling, AfterWindow::KillFamily));
    let first = f.grant().refresh_token;
    let child = f.spend(&first).await.unwrap();
    f.handle().advance_secs(61);
    assert_eq!(f.spend(&first).await.unwrap_err(), BAD);
    assert_eq!(f.spend(&child).await.unwrap_err(), BAD);
    let view = f.handle().grants(HUB).remove(0);
    assert_eq!((view.reuse_detected, view.ended), (1, Some(FamilyEnd::ReuseDetected)));
    assert_eq!(f.handle().stats().reuse_detected, 1);
}

#[tokio::test]
async fn a_spent_token_after_its_window_may_also_just_be_refused() {
    let f = start().await;
    f.rotate(grace(GraceStyle::Sibling, AfterWindow::Refuse));
    let first = f.grant().refresh_token;
    let child = f.spend(&first).await.unwrap();
    f.handle().advance_secs(61);
    assert_eq!(f.spend(&first).await.unwrap_err(), BAD);
    assert!(f.spend(&child).await.is_ok());
}

#[tokio::test]
async fn strict_ends_the_whole_family_when_a_spent_token_comes_again() {
    let f = start().await;
    f.rotate(Rotation::Strict);
    let first = f.grant().refresh_token;
    let other = f.grant().refresh_token;
    let child = f.spend(&first).await.unwrap();
    let grandchild = f.spend(&child).await.unwrap();
    assert_eq!(f.spend(&first).await.unwrap_err(), BAD);
    assert_eq!(f.spend(&grandchild).await.unwrap_err(), BAD);
    assert_eq!(f.handle().stats().reuse_detected, 1);
    assert!(f.spend(&other).await.is_ok(), "another consent is another family");
}

#[tokio::test]
async fn introspection_calls_a_spent_token_dead_even_while_its_window_is_open() {
    let f = start().await;
    f.rotate(grace(GraceStyle::Sibling, AfterWindow::KillFamily));
    let first = f.grant().refresh_token;
    assert_eq!(f.introspect(&first).await["active"], true);
    let child = f.spend(&first).await.unwrap();
    assert_eq!(f.introspect(&first).await["active"], false);
    assert_eq!(f.introspect(&child).await["active"], true);
}
