use std::future::{Ready, pending, ready};
use std::sync::atomic::{AtomicU32, Ordering};

use tokenward_types::SeededRng;

use super::*;

fn calls() -> RemoteCalls {
    let policy = CallPolicy { failures: 4, ..CallPolicy::default() };
    RemoteCalls::new("fake: key one at https://x", policy, Arc::new(SeededRng::new(1)))
}

fn away() -> CryptoError {
    CryptoError::new(CryptoErrorKind::Unavailable, "connection refused")
}

/// Fails so often, then answers.
struct Service {
    failures: u32,
    asked: AtomicU32,
}

impl Service {
    fn failing(failures: u32) -> Self {
        Self { failures, asked: AtomicU32::new(0) }
    }

    fn ask(&self) -> Ready<Result<u32, CryptoError>> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        ready(if asked < self.failures { Err(away()) } else { Ok(asked) })
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_followed_by_another_attempt_after_a_jittered_wait() {
    let (calls, service) = (calls(), Service::failing(2));
    let start = Instant::now();
    calls.repeatable(|| service.ask()).await.expect("the third attempt succeeds");
    assert_eq!(service.asked(), 3);
    // 100 ms and 200 ms, each shortened by up to a half.
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(150) && waited <= Duration::from_millis(302), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_and_the_last_failure_is_told() {
    let (calls, service) = (calls(), Service::failing(u32::MAX));
    let error = calls.repeatable(|| service.ask()).await.expect_err("it is away");
    assert_eq!((service.asked(), error.to_string().as_str()), (3, "connection refused"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_tried_again_and_counts_as_an_answer() {
    let calls = calls();
    let asked = AtomicU32::new(0);
    for _ in 0..20 {
        let outcome: Result<(), _> = calls
            .repeatable(|| {
                asked.fetch_add(1, Ordering::Relaxed);
                async { Err(CryptoError::new(CryptoErrorKind::Refused, "no")) }
            })
            .await;
        assert_eq!(outcome.expect_err("it refuses").kind(), CryptoErrorKind::Refused);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 20);
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_done_twice_has_one_attempt() {
    let (calls, service) = (calls(), Service::failing(1));
    calls.once(|| service.ask()).await.expect_err("the one attempt fails");
    assert_eq!(service.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_ends_within_the_longest_call() {
    let calls = calls();
    let start = Instant::now();
    let error = calls.repeatable(pending::<Result<(), _>>).await.expect_err("nothing answers");
    assert_eq!(error.kind(), CryptoErrorKind::Unavailable);
    assert!(error.to_string().starts_with("fake: key one at https://x: no answer within 5.0 s"), "{error}");
    let elapsed = start.elapsed();
    assert!(elapsed >= calls.policy.timeout * 3 && elapsed <= calls.policy.longest_call(), "{elapsed:?}");
}

async fn open(calls: &RemoteCalls) {
    for _ in 0..2 {
        calls.repeatable(|| async { Err::<(), _>(away()) }).await.expect_err("it is away");
    }
}

#[tokio::test(start_paused = true)]
async fn after_several_failures_in_a_row_it_is_left_alone_and_the_message_says_for_how_long() {
    let calls = calls();
    open(&calls).await;
    let service = Service::failing(0);
    let error = calls.repeatable(|| service.ask()).await.expect_err("it is left alone");
    assert_eq!((service.asked(), error.kind()), (0, CryptoErrorKind::Unavailable));
    assert_eq!(
        error.to_string(),
        "fake: key one at https://x: not asked, because its last 4 calls failed; it is asked again in 5.0 s. \
         The last failure: connection refused"
    );
}

#[tokio::test(start_paused = true)]
async fn after_the_pause_one_call_finds_out_while_others_are_refused() {
    let calls = calls();
    open(&calls).await;
    sleep(calls.policy.pause).await;
    let service = Service::failing(0);
    let probe = calls.once(|| async {
        calls.once(|| service.ask()).await.expect_err("another call is refused meanwhile");
        service.ask().await
    });
    probe.await.expect("it is back");
    assert_eq!(service.asked(), 1);
    calls.once(|| service.ask()).await.expect("calls pass again");
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_starts_another_pause_and_one_that_is_given_up_does_not() {
    let calls = calls();
    open(&calls).await;
    sleep(calls.policy.pause).await;
    calls.once(|| async { Err::<(), _>(away()) }).await.expect_err("it is still away");
    let service = Service::failing(0);
    calls.once(|| service.ask()).await.expect_err("it is left alone again");
    sleep(calls.policy.pause).await;
    let given_up = timeout(Duration::from_millis(1), calls.once(pending::<Result<(), _>>)).await;
    assert!(given_up.is_err(), "the caller went away first");
    calls.once(|| service.ask()).await.expect("the next call finds out");
}

#[tokio::test(start_paused = true)]
async fn one_answer_ends_the_count_of_failures() {
    let calls = calls();
    for _ in 0..10 {
        let service = Service::failing(2);
        calls.repeatable(|| service.ask()).await.expect("the third attempt succeeds");
    }
}

#[test]
fn waits_vary() {
    let calls = calls();
    let waits: std::collections::BTreeSet<_> =
        (0..20).map(|_| calls.jittered(Duration::from_secs(1))).collect();
    assert!(waits.len() > 10, "{waits:?}");
    assert!(waits.iter().all(|wait| (500..=1000).contains(&wait.as_millis())), "{waits:?}");
}
