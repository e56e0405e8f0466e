use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

fn id(n: u32) -> (TenantId, ConnectionId) {
    (TenantId::parse("acme").unwrap(), ConnectionId::parse(&format!("con_{n}")).unwrap())
}

fn client() -> OAuthClientId {
    OAuthClientId::parse("main").unwrap()
}

fn guard() -> ClientGuard {
    ClientGuard::new(client(), None)
}

fn telling() -> (ClientGuard, UnboundedReceiver<(OAuthClientId, News)>) {
    let (sender, news) = unbounded_channel();
    (ClientGuard::new(client(), Some(sender)), news)
}

fn permit(guard: &ClientGuard, now: Timestamp) -> Permit<'_> {
    guard.admit(now).unwrap().0
}

fn shared(number: i64, remaining: u64) -> CallPause {
    CallPause {
        oauth_client: client(),
        cause: PauseCause::RateLimited,
        number,
        remaining: Duration::from_secs(remaining),
        refusals: 0,
    }
}

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

#[test]
fn after_a_throttle_one_probe_goes_first() {
    let guard = guard();
    permit(&guard, NOW).rate_limited(Some(Duration::from_secs(7)), NOW);
    let refused = guard.admit(NOW).unwrap_err();
    assert_eq!(refused.reason, Reason::ProviderRateLimited);
    assert_eq!(refused.retry_after, Some(Duration::from_secs(7)));
    let later = NOW + Duration::from_secs(7);
    let probe = permit(&guard, later);
    assert!(guard.admit(later).is_err());
    probe.succeeded(later);
    assert!(guard.admit(later).is_ok());
}

#[test]
fn a_probe_that_ends_without_a_word_lets_the_next_one_probe() {
    let guard = guard();
    permit(&guard, NOW).rate_limited(Some(Duration::from_secs(7)), NOW);
    let later = NOW + Duration::from_secs(7);
    drop(permit(&guard, later));
    permit(&guard, later).succeeded(later);
}

#[test]
fn a_call_that_was_under_way_before_a_pause_does_not_end_it() {
    let guard = guard();
    let (early, other) = (permit(&guard, NOW), permit(&guard, NOW));
    other.rate_limited(Some(Duration::from_secs(60)), NOW);
    early.succeeded(NOW);
    assert_eq!(guard.admit(NOW).unwrap_err().reason, Reason::ProviderRateLimited);
}

#[test]
fn a_retry_after_is_believed_for_five_minutes_at_most() {
    let guard = guard();
    let permit = permit(&guard, NOW);
    assert_eq!(permit.rate_limited(Some(Duration::from_secs(86_400)), NOW), Duration::from_secs(300));
}

#[test]
fn the_breaker_opens_longer_each_time() {
    let guard = guard();
    let together: Vec<_> = (0..5).map(|_| permit(&guard, NOW)).collect();
    assert!(together.iter().all(|permit| permit.refused(NOW) == Duration::from_secs(30)));
    let mut now = NOW;
    let waits: Vec<_> = (0..5)
        .map(|_| {
            now = now + PAUSE_MAX;
            permit(&guard, now).refused(now).as_secs()
        })
        .collect();
    assert_eq!(waits, [60, 120, 240, 300, 300]);
    assert_eq!(guard.admit(now).unwrap_err().reason, Reason::OAuthClientMisconfigured);
    guard.mended();
    assert_eq!(permit(&guard, now).refused(now), Duration::from_secs(30));
}

#[test]
fn unexpected_refusals_reach_the_client_only_when_three_connections_show_them() {
    let guard = guard();
    let unexpected = |n| {
        let (tenant, connection) = id(n);
        permit(&guard, NOW).unexpected(&tenant, &connection, NOW)
    };
    assert!(![1, 1, 1, 2].into_iter().any(unexpected));
    permit(&guard, NOW).succeeded(NOW);
    assert!(![1, 2].into_iter().any(unexpected));
    assert!(unexpected(3));
    assert!(guard.admit(NOW).is_err());
}

#[test]
fn deaths_are_counted_per_connection_in_ten_minutes() {
    let guard = guard();
    for n in 0..6 {
        let (tenant, connection) = id(n);
        guard.died(&tenant, &connection, NOW);
        guard.died(&tenant, &connection, NOW);
    }
    assert_eq!(guard.deaths(NOW), 6);
    assert!(ClientGuard::is_mass_death(6, 10));
    assert!(!ClientGuard::is_mass_death(6, 1000));
    assert!(!ClientGuard::is_mass_death(5, 10));
    assert_eq!(guard.deaths(NOW + DEATH_WINDOW), 0);
}

#[test]
fn mending_a_client_ends_no_throttle() {
    let guard = guard();
    permit(&guard, NOW).rate_limited(Some(Duration::from_secs(7)), NOW);
    guard.mended();
    assert_eq!(guard.admit(NOW).unwrap_err().reason, Reason::ProviderRateLimited);
}

#[test]
fn a_pause_and_its_end_are_told() {
    let (guard, mut news) = telling();
    let together = [permit(&guard, NOW), permit(&guard, NOW), permit(&guard, NOW)];
    for throttled in &together {
        throttled.rate_limited(Some(Duration::from_secs(7)), NOW);
    }
    let begun = BeginPause { cause: PauseCause::RateLimited, length: Duration::from_secs(7), refusals: 0 };
    assert_eq!(news.try_recv().unwrap(), (client(), News::Paused(begun)));
    assert!(news.try_recv().is_err(), "those that were under way together are one throttle");
    guard.published(&shared(4, 7));
    let later = NOW + Duration::from_secs(7);
    let (mut probe, number) = guard.admit(later).unwrap();
    assert_eq!(number, Some(4));
    probe.claimed(4);
    drop(probe);
    assert_eq!(news.try_recv().unwrap().1, News::ProbeReleased(4));
    permit(&guard, later).succeeded(later);
    assert_eq!(news.try_recv().unwrap().1, News::Ended(Some(4)));
    permit(&guard, later).succeeded(later);
    assert!(news.try_recv().is_err());
}

#[test]
fn a_probe_that_another_server_claimed_is_not_released() {
    let (guard, mut news) = telling();
    guard.learn(Some(&shared(4, 0)), NOW);
    let (probe, number) = guard.admit(NOW).unwrap();
    assert_eq!(number, Some(4));
    drop(probe);
    assert!(news.try_recv().is_err());
}

#[test]
fn pauses_of_other_servers_are_kept_and_end_with_them() {
    let guard = guard();
    guard.learn(Some(&shared(4, 60)), NOW);
    assert_eq!(guard.admit(NOW).unwrap_err().retry_after, Some(Duration::from_secs(60)));
    guard.learn(None, NOW);
    assert!(guard.admit(NOW).is_ok());
}

#[test]
fn a_pause_of_our_own_outlives_a_reading_from_before_it() {
    let guard = guard();
    permit(&guard, NOW).rate_limited(Some(Duration::from_secs(7)), NOW);
    guard.learn(None, NOW);
    assert!(guard.admit(NOW).is_err());
    guard.published(&shared(4, 7));
    let later = NOW + Duration::from_secs(7);
    permit(&guard, later).succeeded(later);
    guard.learn(Some(&shared(4, 0)), later);
    assert!(
        guard.check(later).is_ok() && guard.pause_cause().is_none(),
        "an old reading brings no pause back"
    );
    guard.learn(Some(&shared(5, 3)), later);
    assert!(guard.admit(later).is_err());
}

#[test]
fn a_wall_clock_that_jumped_does_not_make_a_pause_longer() {
    let guard = guard();
    guard.learn(Some(&shared(4, 60)), NOW);
    let an_hour_ago = NOW - Duration::from_secs(3600);
    guard.learn(Some(&shared(4, 59)), an_hour_ago);
    assert_eq!(guard.admit(an_hour_ago).unwrap_err().retry_after, Some(Duration::from_secs(59)));
}
