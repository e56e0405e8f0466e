//! Between messages and the broker's words.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use tokenward_broker::Error;
use tokenward_storage::Version;
use tokenward_types::{InvalidId, Scopes, Timestamp};

/// A point in time as a message carries it.
pub(crate) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let micros = at.as_micros().rem_euclid(1_000_000);
    prost_types::Timestamp { seconds: at.as_secs(), nanos: i32::try_from(micros * 1000).unwrap_or(0) }
}

/// A duration as a message carries it.
pub(crate) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A duration from a message. Negative ones, and those that are not well-formed, are refused.
pub(crate) fn read_duration(
    field: &'static str,
    duration: Option<prost_types::Duration>,
) -> Result<Option<Duration>, Error> {
    let Some(duration) = duration else { return Ok(None) };
    if duration.seconds < 0 || duration.nanos < 0 {
        return Err(Error::invalid(field, "must not be negative"));
    }
    let (seconds, nanos) = (duration.seconds.unsigned_abs(), duration.nanos.unsigned_abs());
    if nanos >= 1_000_000_000 {
        return Err(Error::invalid(field, "nanos must be less than 1,000,000,000"));
    }
    Ok(Some(Duration::new(seconds, nanos)))
}

/// An identifier from a message.
pub(crate) fn id<T: FromStr<Err = InvalidId>>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: InvalidId| {
        Error::new(tokenward_broker::Reason::InvalidRequest, error.to_string()).with("field", error.kind)
    })
}

/// An identifier from a message, if it is there.
pub(crate) fn optional_id<T: FromStr<Err = InvalidId>>(text: &str) -> Result<Option<T>, Error> {
    if text.is_empty() { Ok(None) } else { id(text).map(Some) }
}

/// Scopes from a message.
pub(crate) fn read_scopes(field: &'static str, scopes: &[String]) -> Result<Scopes, Error> {
    Scopes::new(scopes).map_err(|error| Error::invalid(field, error))
}

/// Scopes as a message carries them.
pub(crate) fn scopes(scopes: &Scopes) -> Vec<String> {
    scopes.iter().map(str::to_owned).collect()
}

/// Labels from a message.
pub(crate) fn read_labels(labels: std::collections::HashMap<String, String>) -> BTreeMap<String, String> {
    labels.into_iter().collect()
}

/// An etag as a message carries it.
pub(crate) fn etag(version: Version) -> String {
    version.to_string()
}

/// The version that an etag stands for; `None` where the caller gave none.
pub(crate) fn read_etag(etag: &str) -> Result<Option<Version>, Error> {
    if etag.is_empty() {
        return Ok(None);
    }
    let digits = etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(etag);
    digits.parse().map(Some).map_err(|_| Error::invalid("etag", "is not one that was given out here"))
}

/// A message that a request cannot do without.
pub(crate) fn required<T>(field: &'static str, message: Option<T>) -> Result<T, Error> {
    message.ok_or_else(|| Error::invalid(field, "is missing"))
}

#[cfg(test)]
mod tests {
    use tokenward_types::TenantId;

    use super::*;

    #[test]
    fn times_keep_their_microseconds_and_count_up_before_1970_too() {
        let nanos = |micros| timestamp(Timestamp::from_micros(micros));
        assert_eq!(nanos(1_500_000), prost_types::Timestamp { seconds: 1, nanos: 500_000_000 });
        assert_eq!(nanos(-1), prost_types::Timestamp { seconds: -1, nanos: 999_999_000 });
    }

    #[test]
    fn durations_read_back_and_negative_ones_are_refused() {
        let some = Duration::new(90, 5000);
        assert_eq!(read_duration("min_ttl", Some(duration(some))).unwrap(), Some(some));
        assert_eq!(read_duration("min_ttl", None).unwrap(), None);
        for (seconds, nanos) in [(-1, 0), (0, -1), (1, 1_000_000_000), (i64::MIN, i32::MIN)] {
            let error = read_duration("min_ttl", Some(prost_types::Duration { seconds, nanos })).unwrap_err();
            assert_eq!(error.metadata["field"], "min_ttl");
        }
    }

    #[test]
    fn a_malformed_identifier_is_named() {
        let error = id::<TenantId>("a b").unwrap_err();
        assert_eq!(error.metadata["field"], "tenant_id");
        assert!(error.message.starts_with("tenant_id must be"), "{error}");
        assert_eq!(optional_id::<TenantId>("").unwrap(), None);
        assert!(optional_id::<TenantId>(" ").is_err());
    }

    #[test]
    fn etags_are_versions_with_or_without_quotes() {
        assert_eq!(read_etag(&etag(7)).unwrap(), Some(7));
        assert_eq!(read_etag("\"7\"").unwrap(), Some(7));
        assert_eq!(read_etag("").unwrap(), None);
        assert_eq!(read_etag("seven").unwrap_err().metadata["field"], "etag");
    }
}
