//! The log. Only this crate's own events are written, at any level.
//!
//! A dependency may quote in an event or an error what it was given: an address, a header, a row. At trace level some do.
//! So targets are allowed, not denied, and a dependency that is added later is silent without anybody's thinking of it.

use std::io;
use std::panic;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use crate::config::LogFormat;

/// Writes this process's log to standard error from now on. Does nothing if a log was installed before.
pub fn install(format: LogFormat, levels: &str) {
    let levels = parse_levels(levels).unwrap_or_else(|_| Targets::new().with_target(OURS, LevelFilter::INFO));
    // A second server in one process, as tests start them, keeps the first one's log.
    let _ = tracing::subscriber::set_global_default(subscriber(format, levels, io::stderr));
    panic::set_hook(Box::new(|panic| {
        // Not the message: an assertion may quote the values it compared.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panicked");
    }));
}

/// A log in that form, written there.
pub fn subscriber<W>(format: LogFormat, levels: Targets, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    // `Targets` compares prefixes of text and would take a crate whose name begins like ours.
    let ours = filter_fn(|event| event.target() == OURS || event.target().starts_with(OURS_WITHIN));
    tracing_subscriber::registry().with(layer.with_filter(levels.and(ours)))
}

/// Reads `LEVEL` or `LEVEL,blind_relay::PART=LEVEL,…`. The error says what to write.
pub fn parse_levels(text: &str) -> Result<Targets, String> {
    let mut targets = Targets::new().with_target(OURS, LevelFilter::INFO);
    for item in text.split(',').map(str::trim) {
        let (target, level) = item.split_once('=').unwrap_or((OURS, item));
        if target != OURS && !target.starts_with(OURS_WITHIN) {
            return Err(format!(
                "name parts of {OURS} only: other crates may log personal values"
            ));
        }
        let level: LevelFilter = match level {
            // `LevelFilter` reads numbers too, which nobody would guess.
            "off" | "error" | "warn" | "info" | "debug" | "trace" => level.parse().expect("the name of a level"),
            _ => return Err("choose off, error, warn, info, debug or trace".to_owned()),
        };
        targets = targets.with_target(target, level);
    }
    Ok(targets)
}

const OURS: &str = "blind_relay";
const OURS_WITHIN: &str = "blind_relay::";

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, levels: &str, act: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let levels = parse_levels(levels).unwrap();
        tracing::subscriber::with_default(subscriber(format, levels, move || writer.clone()), act);
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn dependencies_are_silent_even_at_trace() {
        let text = logged(LogFormat::Text, "trace", || {
            tracing::error!(target: "sqlx::query", "dependency");
            tracing::trace!(target: "hyper::proto", "dependency");
            tracing::error!(target: "blind_relayed", "dependency with a name like ours");
            let _span = tracing::error_span!(target: "tower_http", "dependency").entered();
            tracing::trace!("ours");
        });
        assert!(text.contains("ours"), "{text}");
        assert!(!text.contains("dependency"), "{text}");
    }

    #[test]
    fn one_part_can_say_more() {
        let text = logged(LogFormat::Text, "warn,blind_relay::relay=debug", || {
            tracing::info!("too much");
            tracing::debug!(target: "blind_relay::relay::session", "wanted");
        });
        assert!(text.contains("wanted") && !text.contains("too much"), "{text}");
    }

    #[test]
    fn json_is_an_object_a_line() {
        let text = logged(LogFormat::Json, "info", || tracing::info!(count = 3, "counted"));
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!((&line["message"], &line["count"]), (&"counted".into(), &3.into()));
    }

    #[test]
    fn text_has_no_escapes() {
        let text = logged(LogFormat::Text, "info", || tracing::info!(answer = "yes", "asked"));
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn other_crates_and_unknown_levels_are_refused() {
        for text in ["sqlx=trace", "info,hyper=warn", "loud", "", "3", "blind_relayed=info"] {
            assert!(parse_levels(text).is_err(), "{text}");
        }
    }
}
