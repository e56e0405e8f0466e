//! Trouble on order: each kind does what it says, to whom it says, as often as it says.

use std::time::Duration;

use tokenward_hubspot_sim::{Endpoint, Fault, FaultKind, Outcome, Rotation};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{DATED, Fixture, HUB, answer, start, text};

/// Everything that comes back over a bare socket until the stand-in closes it.
async fn raw_refresh(f: &Fixture, token: &str) -> Vec<u8> {
    let body = format!(
        "client_id={}&client_secret={}&grant_type=refresh_token&refresh_token={token}",
        f.client_id, f.client_secret
    );
    let request = format!(
        "POST {DATED} HTTP/1.1\r\nhost: sim\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(f.sim.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

fn last(f: &Fixture) -> tokenward_hubspot_sim::LogEntry {
    f.handle().log(None, 1).entries.pop().unwrap()
}

#[tokio::test]
async fn a_dropped_reply_sends_not_one_byte_though_the_token_was_issued() {
    let f = start().await;
    f.rotate(Rotation::Strict);
    let token = f.grant().refresh_token;
    f.handle().add_fault(Fault::new(FaultKind::DropReplyAfterIssue).on_refresh().times(1));
    assert!(raw_refresh(&f, &token).await.is_empty());
    let entry = last(&f);
    assert_eq!(
        (entry.outcome, entry.issued, entry.delivered, entry.status),
        (Outcome::Fault, true, false, 0)
    );
    assert_eq!(f.handle().stats().issued_untold, 1);
    let family = f.handle().grants(HUB).remove(0);
    assert_eq!(family.refresh_tokens.len(), 2, "the token was rotated");
    assert_ne!(family.live().next().unwrap().token, token);
}

#[tokio::test]
async fn an_http_client_sees_a_dropped_reply_as_a_closed_connection() {
    let f = start().await;
    let token = f.grant().refresh_token;
    f.handle().add_fault(Fault::new(FaultKind::DropReplyAfterIssue).times(1));
    let error = f.refresh_request(&token).send().await.unwrap_err();
    assert!(error.is_request() && !error.is_connect(), "{error:?}");
    assert_eq!(f.handle().stats().refreshes, 1, "and does not send it again");
}

#[tokio::test]
async fn a_hang_up_closes_the_connection_and_does_nothing() {
    let f = start().await;
    f.rotate(Rotation::Strict);
    let token = f.grant().refresh_token;
    f.handle().add_fault(Fault::new(FaultKind::HangUpBefore).times(1));
    assert!(raw_refresh(&f, &token).await.is_empty());
    assert!(!last(&f).issued);
    assert!(f.handle().is_refresh_token_live(&token));
}

#[tokio::test]
async fn a_truncated_body_is_shorter_than_its_content_length() {
    let f = start().await;
    let token = f.grant().refresh_token;
    f.handle().add_fault(Fault::new(FaultKind::TruncatedBody).times(2));
    let raw = String::from_utf8(raw_refresh(&f, &token).await).unwrap();
    let (head, body) = raw.split_once("\r\n\r\n").unwrap();
    let promised: usize =
        head.lines().find_map(|l| l.strip_prefix("content-length: ")).and_then(|n| n.parse().ok()).unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && !body.is_empty() && body.len() < promised);
    let response = f.refresh_request(&token).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err());
    let entry = last(&f);
    assert!(entry.issued && !entry.delivered);
}

#[tokio::test]
async fn statuses_come_with_their_own_body_and_retry_after() {
    let f = start().await;
    let token = f.grant().refresh_token;
    for status in [423, 477, 500, 503, 521, 524] {
        let kind = FaultKind::Status { status, body: None, content_type: None, retry_after: Some(86_400) };
        f.handle().add_fault(Fault::new(kind).on_refresh().times(1));
        let response = f.refresh_request(&token).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers()["retry-after"], "86400");
    }
    let (body, content_type) = (Some("{}".to_owned()), Some("text/plain".to_owned()));
    let kind = FaultKind::Status { status: 200, body, content_type, retry_after: None };
    f.handle().add_fault(Fault::new(kind).times(1));
    let response = f.refresh_request(&token).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(response.text().await.unwrap(), "{}");
    assert_eq!(f.handle().stats().issued, 0);
}

#[tokio::test]
async fn html_empty_and_huge_bodies_are_not_what_a_client_hopes_for() {
    let f = start().await;
    let token = f.grant().refresh_token;
    f.handle().add_fault(Fault::new(FaultKind::Html { status: Some(200) }).times(1));
    let response = f.refresh_request(&token).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    assert!(response.text().await.unwrap().starts_with("<html>"));
    f.handle().add_fault(Fault::new(FaultKind::EmptyBody).times(1));
    let response = f.refresh_request(&token).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.bytes().await.unwrap().len()), (200, 0));
    f.handle().add_fault(Fault::new(FaultKind::HugeBody { bytes: None }).times(1));
    let response = f.refresh_request(&token).send().await.unwrap();
    let body = response.bytes().await.unwrap();
    assert_eq!(body.len(), 10 * 1024 * 1024);
    assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
    assert!(last(&f).delivered);
}

#[tokio::test]
async fn a_replaced_answer_can_come_after_the_token_was_issued() {
    let f = start().await;
    f.rotate(Rotation::Strict);
    let token = f.grant().refresh_token;
    f.handle().add_fault(Fault::new(FaultKind::Html { status: None }).on_refresh().times(1).after_issue());
    assert_eq!(f.refresh_request(&token).send().await.unwrap().status(), 502);
    assert!(last(&f).issued);
    assert!(!f.handle().is_refresh_token_live(&token));
}

#[tokio::test]
async fn throttling_answers_429_with_retry_after_on_oauth_and_on_the_crm() {
    let f = start().await;
    let grant = f.grant();
    let kind = FaultKind::RateLimited { retry_after: Some(7), policy_name: Some("DAILY".into()) };
    f.handle().add_fault(Fault::new(kind).times(2));
    let response = f.refresh_request(&grant.refresh_token).send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "7");
    let (status, body) = answer(response).await;
    assert_eq!((status.as_u16(), text(&body["message"])), (429, "You have reached your rate limit.".into()));
    let (status, body) = f.contacts(&grant.access_token.unwrap(), "").await;
    assert_eq!((status.as_u16(), text(&body["policyName"])), (429, "DAILY".into()));
}

#[tokio::test]
async fn answers_can_lack_or_twist_their_fields() {
    let f = start().await;
    let token = f.grant().refresh_token;
    f.handle().add_fault(Fault::new(FaultKind::NoExpiresIn).times(1));
    f.handle().add_fault(Fault::new(FaultKind::NoRefreshToken).times(1));
    let (status, body) = f.refresh(&token).await;
    assert_eq!(status, 200);
    assert!(body.get("expires_in").is_none() && body.get("refresh_token").is_none());
    assert_eq!(last(&f).faults, ["no_expires_in", "no_refresh_token"]);
    f.handle().add_fault(Fault::new(FaultKind::NegativeExpiresIn).times(1));
    f.handle().add_fault(Fault::new(FaultKind::WrongHubId { answer_hub_id: 5 }).times(1));
    let (_, body) = f.refresh(&token).await;
    assert_eq!((body["expires_in"].as_i64(), body["hub_id"].as_u64()), (Some(-1), Some(5)));
    assert_eq!(f.refresh(&token).await.1["hub_id"], HUB);
}

#[tokio::test]
async fn refusals_can_be_ordered_though_nothing_is_wrong() {
    let f = start().await;
    let token = f.grant().refresh_token;
    for (kind, word) in [
        (FaultKind::BadHub, "BAD_HUB"),
        (FaultKind::BadRefreshToken, "BAD_REFRESH_TOKEN"),
        (FaultKind::BadClientSecret, "BAD_CLIENT_SECRET"),
    ] {
        f.handle().add_fault(Fault::new(kind).on_refresh().times(1));
        let (status, body) = f.refresh(&token).await;
        assert_eq!((status.as_u16(), text(&body["status"])), (400, word.into()));
    }
    assert_eq!(f.refresh(&token).await.0, 200);
}

#[tokio::test]
async fn faults_hit_only_what_they_select() {
    let f = start().await;
    let ours = f.grant();
    let request = tokenward_hubspot_sim::GrantRequest {
        client_id: f.client_id.clone(),
        hub_ids: vec![42],
        ..Default::default()
    };
    let other = f.handle().create_grants(&request).unwrap().remove(0);
    f.handle().add_fault(Fault::new(FaultKind::BadHub).on_refresh().for_hub(HUB));
    assert_eq!(f.refresh(&ours.refresh_token).await.1["status"], "BAD_HUB");
    assert_eq!(f.refresh(&other.refresh_token).await.0, 200);
    assert_eq!(f.introspect(&ours.refresh_token).await["active"], true);
    assert_eq!(f.contacts(&ours.access_token.unwrap(), "").await.0, 200);
    f.handle().clear_faults();
    assert_eq!(f.refresh(&ours.refresh_token).await.0, 200);
    let elsewhere = Fault { client_id: Some("other".into()), ..Fault::new(FaultKind::BadHub) };
    f.handle().add_fault(elsewhere);
    assert_eq!(f.refresh(&ours.refresh_token).await.0, 200);
}

#[tokio::test]
async fn faults_skip_count_and_roll_dice() {
    let f = start().await;
    let token = f.grant().refresh_token;
    f.handle().add_fault(Fault { skip: 1, ..Fault::new(FaultKind::BadHub).times(2) });
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(f.refresh(&token).await.0.as_u16());
    }
    assert_eq!(statuses, [200, 400, 400, 200]);
    f.handle().clear_faults();
    let id = f.handle().add_fault(Fault { probability: Some(0.5), ..Fault::new(FaultKind::BadHub) });
    for _ in 0..60 {
        f.refresh(&token).await;
    }
    let hits = f.handle().faults()[0].hits;
    assert!((10..=50).contains(&hits), "{hits}");
    assert!(f.handle().remove_fault(id) && !f.handle().remove_fault(id));
}

#[tokio::test]
async fn a_vendor_that_is_slow_finishes_its_work_though_the_client_gave_up() {
    let f = start().await;
    f.rotate(Rotation::Strict);
    let token = f.grant().refresh_token;
    f.handle().add_fault(Fault::new(FaultKind::Latency { ms: 150 }).on(Endpoint::Token).times(1));
    let error = f.refresh_request(&token).timeout(Duration::from_millis(30)).send().await.unwrap_err();
    assert!(error.is_timeout());
    while last(&f).outcome == Outcome::Pending {
        tokio::task::yield_now().await;
    }
    let entry = last(&f);
    assert!(entry.issued && !entry.delivered);
    assert!(!f.handle().is_refresh_token_live(&token));
}

#[tokio::test]
async fn latency_shows_in_the_logged_time() {
    let f = start().await;
    let token = f.grant().refresh_token;
    f.handle().add_fault(Fault::new(FaultKind::Latency { ms: 30 }).times(1));
    f.handle().add_fault(Fault::new(FaultKind::Latency { ms: 30 }).times(1).after_issue());
    assert_eq!(f.refresh(&token).await.0, 200);
    assert!(last(&f).server_us >= 60_000);
}
