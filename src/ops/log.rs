//! The log: one line per event on standard error, through a bounded queue.
//!
//! Whoever reads the other end of the pipe may stop reading; then lines are dropped and counted, and signing goes on.

use std::io;
use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Time, level, message and `key=value` pairs.
    #[default]
    Text,
}

/// Lines that wait for a slow reader; past that they are dropped.
const QUEUE_LINES: usize = 4096;

/// Starts the log. Lines that are still queued are written when the guard goes.
pub fn init(format: LogFormat, verbose: bool) -> WorkerGuard {
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUE_LINES).finish(io::stderr());
    let level = if verbose { Level::DEBUG } else { Level::INFO };
    let subscriber =
        tracing_subscriber::fmt().with_writer(writer).with_max_level(level).with_target(false).with_ansi(false);
    // A second subscriber in one process would be a mistake in a test; the first one stays.
    let _ = match format {
        LogFormat::Json => tracing::subscriber::set_global_default(subscriber.json().flatten_event(true).finish()),
        LogFormat::Text => tracing::subscriber::set_global_default(subscriber.finish()),
    };
    guard
}
