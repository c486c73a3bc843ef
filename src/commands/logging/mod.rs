//! Logging.

mod fields;
mod lines;

use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};
use std::time::SystemTime;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

use super::stdout;
use crate::config::{LogConfig, LogFormat, OWN_CRATES};
use lines::Lines;

/// Prints log lines to stderr from now on, in the format and at the level of `config`. Panics are logged too.
///
/// A log that cannot be written stops nothing: see [`Output`](crate::telemetry::Output). Only the first call in a process
/// has an effect.
pub fn init(config: &LogConfig) {
    let output = stdout::stderr(match config.log_format {
        LogFormat::Text => lost_as_text,
        LogFormat::Json => lost_as_json,
    });
    // https://no-color.org: any value but an empty one.
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let coloured = colours && io::stderr().is_terminal();
    let lines = Lines::new(config.log_format, coloured, move |line| output.write_line(line));
    let installed = registry().with(levels(&config.log)).with(lines).try_init();
    // An earlier subscriber, as tests may have one, stays.
    if installed.is_ok() {
        // The hook of the standard library waits for a reader of stderr.
        panic::set_hook(Box::new(log_panic));
    }
}

/// Returns what is logged: a level alone is about the plugin's own crates, while libraries log warnings. Only `trace`
/// means everything.
///
/// Not an `EnvFilter`: its regular expressions make a program that is a megabyte larger.
fn levels(setting: &str) -> Targets {
    // The setting was checked when it was read.
    let wanted: Targets = setting.parse().unwrap_or_default();
    let Some(level) = wanted.default_level().filter(|level| *level < LevelFilter::TRACE) else {
        return wanted;
    };
    let libraries = level.min(LevelFilter::from_level(Level::WARN));
    let own = OWN_CRATES.map(|name| (name, level));
    Targets::new()
        .with_default(libraries)
        .with_targets(own)
        .with_targets(wanted.iter())
}

/// Logs where a panic happened. A text that was put together at run time is left out: it may quote what a caller sent.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload().downcast_ref::<&'static str>();
    let place = panic.location().map(ToString::to_string);
    tracing::error!(
        panic.location = place.as_deref(),
        panic.thread = std::thread::current().name(),
        "A bug in flocker-csi: the code at {} panicked{}{}",
        place.as_deref().unwrap_or("an unknown place"),
        if text.is_some() { ": " } else { "" },
        text.copied().unwrap_or_default(),
    );
}

fn lost_as_text(lost: u64) -> String {
    let now = humantime::format_rfc3339_micros(SystemTime::now());
    format!("{now}  WARN {}", lost_lines(lost))
}

fn lost_as_json(lost: u64) -> String {
    let now = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    let line = serde_json::json!({
        "timestamp": now,
        "level": "WARN",
        "message": lost_lines(lost),
        "lost": lost,
        "target": module_path!(),
    });
    line.to_string()
}

fn lost_lines(lost: u64) -> String {
    format!("{lost} log lines before this one were lost, because the log could not be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_is_not_about_libraries() {
        let debug = levels("debug");
        assert!(debug.would_enable("flocker_csi::node", &Level::DEBUG));
        assert!(debug.would_enable("host_fs", &Level::DEBUG));
        assert!(debug.would_enable("hyper", &Level::WARN));
        assert!(!debug.would_enable("hyper", &Level::INFO));
        let error = levels("error");
        assert!(!error.would_enable("hyper", &Level::WARN));
        let asked = levels("info,hyper=trace,flocker_csi::node=debug");
        assert!(asked.would_enable("hyper::proto", &Level::TRACE));
        assert!(asked.would_enable("flocker_csi::node", &Level::DEBUG));
        assert!(!asked.would_enable("flocker_csi::host", &Level::DEBUG));
        assert!(levels("trace").would_enable("hyper", &Level::TRACE));
        let only = levels("flocker_csi::node=debug");
        assert!(!only.would_enable("flocker_csi::host", &Level::ERROR));
    }
}
