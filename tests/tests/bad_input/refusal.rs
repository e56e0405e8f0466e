//! What every refusal has in common.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// A text that a vendor, a database URL or a token holds and that no caller may read.
pub(crate) const MARKER: &str = "s3cr3t-internal-marker";

/// Words of ours, or of what stands behind us, that mean nothing to a caller.
const INTERNAL: [&str; 9] =
    ["select ", "insert ", "sqlx", "sqlite", "postgres", "/tmp/", "panicked", "<html", MARKER];

/// A refused call.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) metadata: HashMap<String, String>,
    pub(crate) retry_after: Option<Duration>,
}

impl Refused {
    /// Code and reason, to compare.
    pub(crate) fn is(&self) -> (Code, &str) {
        (self.code, &self.reason)
    }

    /// The field that is at fault.
    pub(crate) fn field(&self) -> &str {
        self.metadata.get("field").map_or("", String::as_str)
    }
}

/// The refusal of a call, which must carry what the error table promises and nothing that is ours alone.
#[track_caller]
pub(crate) fn refused<T>(result: Result<T, Status>) -> Refused {
    let Err(status) = result else { panic!("it was not refused") };
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "tokenward");
    assert!(info.metadata.get("request_id").is_some_and(|id| !id.is_empty()), "{info:?}");
    assert!(!status.message().is_empty(), "{info:?}");
    let shown = format!("{} {:?}", status.message(), info.metadata).to_lowercase();
    for word in INTERNAL {
        assert!(!shown.contains(word), "{word:?} shows in {shown}");
    }
    let retry_after = details.retry_info().and_then(|info| info.retry_delay);
    let waiting_helps = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
    assert_eq!(retry_after.is_some(), waiting_helps, "RetryInfo of {status:?}");
    Refused {
        code: status.code(),
        reason: info.reason.clone(),
        message: status.message().to_owned(),
        metadata: info.metadata.clone(),
        retry_after,
    }
}

/// The positive control of every scenario here.
#[test]
fn a_refusal_without_its_details_or_with_internal_text_is_noticed() {
    let details = |domain: &str| {
        let metadata = [("request_id".to_owned(), "req-1".to_owned())];
        ErrorDetails::with_error_info("NOT_FOUND", domain, metadata)
    };
    let status = |message: &str, details| Status::with_error_details(Code::NotFound, message, details);
    let passes =
        |status: Status| std::panic::catch_unwind(AssertUnwindSafe(|| refused(Err::<(), _>(status)))).is_ok();
    assert!(passes(status("there is no tenant", details("tokenward"))));
    assert!(!passes(Status::not_found("there is no tenant")));
    assert!(!passes(status("there is no tenant", details("elsewhere"))));
    assert!(!passes(status("SELECT * FROM connections", details("tokenward"))));
    let mut waiting = details("tokenward");
    waiting.set_retry_info(Some(Duration::from_secs(1)));
    assert!(!passes(status("waiting does not help", waiting)));
}
