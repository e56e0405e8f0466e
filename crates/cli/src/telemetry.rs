//! Logs: to standard error, as text or JSON.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use tokenward_config::{Log, LogFormat};
use tokenward_plugin::Problems;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry;

/// Libraries that see headers, bodies and SQL parameters, which hold tokens and secrets. Below INFO they would print them,
/// so no filter can make them say more.
const CAPPED: [&str; 11] =
    ["aws", "axum", "h2", "hyper", "hyper_util", "reqwest", "rustls", "sea_orm", "sqlx", "tonic", "tower"];

/// Checks a filter.
pub(crate) fn check(log: &Log, problems: &mut Problems) {
    if let Err(error) = EnvFilter::try_new(&log.filter) {
        problems.add("log.filter", format!("{error}: give levels such as \"info,tokenward_broker=debug\""));
    }
}

/// Turns logging on; a filter that is not valid has been reported by [`check`].
pub(crate) fn install(log: &Log) {
    let ansi = std::io::stderr().is_terminal();
    // An error means that logging is on already.
    let _ = tracing::subscriber::set_global_default(subscriber(log, ansi, std::io::stderr));
}

fn subscriber<W>(log: &Log, ansi: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&log.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = filter.and(filter_fn(is_permitted)).or(filter_fn(is_audit));
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match log.format {
        LogFormat::Text => Box::new(registry().with(layer.with_ansi(ansi).with_filter(filter))),
        LogFormat::Json => Box::new(registry().with(layer.json().flatten_event(true).with_filter(filter))),
    }
}

/// Audit events are always kept: a filter must not make a gap in who did what.
fn is_audit(metadata: &Metadata<'_>) -> bool {
    metadata.target() == tokenward_broker::audit::TARGET
}

fn is_permitted(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let library = target.split("::").next().unwrap_or(target);
    // TRACE is greater than DEBUG, and so on.
    *metadata.level() <= Level::INFO || !CAPPED.iter().any(|capped| is_part_of(library, capped))
}

/// Whether `library` is `capped` or a part of it, such as `sqlx_core` of `sqlx`.
fn is_part_of(library: &str, capped: &str) -> bool {
    library.strip_prefix(capped).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// Logs panics instead of printing them. A text that was put together at run time is withheld: it may hold anything.
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = message(panic);
        if tracing::enabled!(Level::ERROR) {
            tracing::error!(location, message, "panicked");
        } else {
            eprintln!("panicked at {location}: {message}");
        }
    }));
}

fn message<'a>(panic: &'a PanicHookInfo<'_>) -> &'a str {
    panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(a text that is not logged)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: LogFormat, work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = Log { filter: filter.into(), format };
        tracing::subscriber::with_default(subscriber(&log, false, move || writer.clone()), work);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_filter_makes_libraries_that_see_secrets_say_more() {
        let events = || {
            tracing::trace!(target: "tokenward_broker::refresh", "ours");
            tracing::trace!(target: "hyper::proto", "header hunter2");
            tracing::debug!(target: "sqlx_core::query", "parameter hunter2");
            tracing::info!(target: "sqlx_core::query", "harmless");
        };
        for filter in ["trace", "hyper=trace,sqlx_core=trace,tokenward_broker=trace"] {
            let text = logged(filter, LogFormat::Text, events);
            assert!(text.contains("ours") && text.contains("harmless"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn no_filter_drops_audit_events() {
        let text = logged("off", LogFormat::Json, || {
            tracing::info!(target: tokenward_broker::audit::TARGET, event = "denial", "access denied");
            tracing::error!("something else");
        });
        let line: serde_json::Value = serde_json::from_str(text.trim()).expect("one JSON object");
        assert_eq!(line["event"], "denial");
    }

    #[test]
    fn parts_of_capped_libraries_are_capped_and_others_are_not() {
        assert!(is_part_of("sqlx_core", "sqlx") && is_part_of("h2", "h2"));
        assert!(is_part_of("aws_smithy_runtime", "aws") && is_part_of("aws_config", "aws"));
        assert!(!is_part_of("h2x", "h2") && !is_part_of("tokenward_server", "tower"));
    }

    #[test]
    fn a_filter_that_is_not_valid_is_reported() {
        let mut problems = Problems::new();
        check(&Log { filter: "info,x=loud".into(), ..Log::default() }, &mut problems);
        assert!(problems.to_string().starts_with("log.filter: "), "{problems}");
    }
}
