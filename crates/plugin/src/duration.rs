//! Durations in the configuration: `"10s"`, `"5m"`, `"1h 30m"`.
//!
//! Use with `#[serde(with = "tokenward_plugin::duration")]`, or [`option`] for one that may be left out.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// Reads a duration such as `"10s"`.
///
/// # Errors
/// A text that is not one; the text is not repeated.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map_err(|_| serde::de::Error::custom("must be a duration such as \"10s\", \"5m\" or \"1h 30m\""))
}

/// Writes a duration as [`deserialize`] reads it.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// A duration that may be left out: `#[serde(default, with = "tokenward_plugin::duration::option")]`.
pub mod option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    struct Given(#[serde(with = "super")] Duration);

    /// Reads a duration, or nothing.
    ///
    /// # Errors
    /// As [`super::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Given>::deserialize(deserializer)?.map(|Given(duration)| duration))
    }

    /// Writes a duration, or nothing.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Config {
        #[serde(with = "super")]
        timeout: Duration,
        #[serde(default, with = "super::option")]
        grace: Option<Duration>,
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        let config: Config =
            serde_json::from_value(serde_json::json!({"timeout": "1m 30s", "grace": "250ms"}))
                .expect("both are durations");
        assert_eq!(config.timeout, Duration::from_secs(90));
        assert_eq!(config.grace, Some(Duration::from_millis(250)));
        let written = serde_json::to_value(&config).unwrap();
        assert_eq!(serde_json::from_value::<Config>(written).unwrap(), config);
    }

    #[test]
    fn one_that_was_left_out_is_none() {
        let config: Config = serde_json::from_value(serde_json::json!({"timeout": "1s"})).unwrap();
        assert_eq!(config.grace, None);
    }

    #[test]
    fn what_is_not_a_duration_is_refused_without_repeating_it() {
        let error = serde_json::from_value::<Config>(serde_json::json!({"timeout": "hunter2"})).unwrap_err();
        assert!(error.to_string().contains("such as \"10s\"") && !error.to_string().contains("hunter2"));
    }
}
