use std::fmt::Write;
use std::time::Duration;

use super::{
    ACCESS_TOKEN, CANARY, CLIENT_SECRET, CODE, ProviderFixture, REFRESH_TOKEN, SAMPLE, ScriptedVendor, Setup,
    Step, build, call, credentials, operations, success,
};
use crate::provider::LogCapture;

/// Whatever happens, no error and no log line of any crate at any level holds a secret, not even one that the vendor
/// repeats; and a planted one would be found.
pub async fn nothing_secret_is_in_errors_or_logs(fixture: &dyn ProviderFixture) {
    let logs = LogCapture::global();
    let vendor = ScriptedVendor::start([]).await;
    let setup = Setup { timeout: Duration::from_millis(500), ..Setup::new(vendor.url()) };
    let provider = build(fixture, &setup).await;
    let mut seen = String::new();
    for operation in operations(&*provider) {
        let mut steps = failures(fixture);
        steps.push(success(fixture, operation));
        for step in steps {
            vendor.push(step);
            if let Err(error) = call(&*provider, operation).await {
                let _ = writeln!(seen, "{error}\n{error:?}");
            }
        }
    }
    vendor.push(Step::answer(400, echo()));
    let _ = provider.check_credentials(&credentials()).await;
    let _ = writeln!(seen, "{:?}", credentials());

    tracing::trace!("planted by tracing: pl4nted-t");
    log::trace!("planted by log: pl4nted-l");
    let logged = logs.text();
    assert!(logged.contains("pl4nted-t") && logged.contains("pl4nted-l"), "the capture works");
    assert!(logged.contains("vendor call failed"), "failures are logged");
    for (what, text) in [("an error", &seen), ("the log", &logged)] {
        let leak = text.lines().find(|line| line.contains(CANARY));
        assert_eq!(leak, None, "{what} holds a secret");
    }
}

/// An answer that repeats everything it was sent.
fn echo() -> String {
    let all = [CLIENT_SECRET, CODE, REFRESH_TOKEN, ACCESS_TOKEN].join(" ");
    let text = serde_json::Value::from(all).to_string();
    format!(
        r#"{{"error":"{CANARY}","error_description":{text},"message":{text},"status":"BAD_{CANARY}","{CANARY}":1}}"#
    )
}

fn failures(fixture: &dyn ProviderFixture) -> Vec<Step> {
    let mut steps: Vec<Step> =
        fixture.refusals().into_iter().map(|refusal| Step::answer(refusal.status, refusal.body)).collect();
    for status in [200, 302, 400, 401, 423, 429, 500, 503] {
        let location = format!("http://127.0.0.1:9/?token={CANARY}");
        steps.push(Step::answer(status, echo()).header("location", location).header("retry-after", CANARY));
    }
    let body = fixture.token_body(&SAMPLE);
    steps.extend([
        Step::HangUpBeforeReading,
        Step::HangUpAfterReading,
        Step::Stall,
        Step::answer(200, &body[..body.len() - 1]),
        Step::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{body}").into()),
        Step::Raw(format!("{CANARY}\r\n\r\n").into()),
        Step::Raw(format!("HTTP/1.1 {CANARY}\r\n\r\n").into()),
    ]);
    steps
}
