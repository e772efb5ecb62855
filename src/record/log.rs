//! The log: one line per event on standard error, through a bounded queue.
//!
//! If the reader of the pipe stops reading, lines are dropped and counted, and signing goes on.

use super::clock::{self, Clock};
use serde_json::json;
use std::{
    io::{self, BufWriter},
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
};
use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};

/// The format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Time, level, message and `key=value` pairs.
    #[default]
    Text,
}

impl LogFormat {
    /// An error that ends the process, after the log was closed, as a line of this format.
    pub(crate) fn fatal(self, message: &str) -> String {
        match self {
            Self::Json => {
                let time = clock::text(SystemTime::now());
                json!({ "timestamp": time, "level": "ERROR", "message": message }).to_string()
            }
            Self::Text => format!("highwater: {message}"),
        }
    }
}

/// How many lines wait for a slow reader. Further lines are dropped.
const QUEUE_LINES: usize = 4096;

/// The log of this process. When dropped, it writes the lines that are still queued, if they are read in time.
pub(crate) struct Log {
    worker: Option<WorkerGuard>,
    dropped: ErrorCounter,
}

impl Log {
    pub(crate) fn start(format: LogFormat, verbose: bool) -> Self {
        // The queue's thread flushes whenever the queue is empty, so lines that arrive together are written together.
        let stderr = BufWriter::new(io::stderr());
        let (writer, worker) =
            NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUE_LINES).finish(stderr);
        let dropped = writer.error_counter();
        let level = if verbose { Level::DEBUG } else { Level::INFO };
        let subscriber = tracing_subscriber::fmt().with_timer(Clock).with_writer(writer).with_max_level(level);
        let subscriber = subscriber.with_target(false).with_ansi(false);
        // Only a test by mistake sets a second subscriber in one process. The first one stays.
        let _ = match format {
            LogFormat::Json => tracing::subscriber::set_global_default(subscriber.json().flatten_event(true).finish()),
            LogFormat::Text => tracing::subscriber::set_global_default(subscriber.finish()),
        };
        Self { worker: Some(worker), dropped }
    }

    /// How many lines were dropped since the process started.
    pub(crate) fn dropped_lines(&self) -> usize {
        self.dropped.dropped_lines()
    }

    /// The counter behind [`Log::dropped_lines`].
    pub(crate) fn dropped(&self) -> ErrorCounter {
        self.dropped.clone()
    }
}

impl Drop for Log {
    /// The guard waits for the queue, and if that is full, for standard output. So a thread of its own drops the guard.
    fn drop(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let (sender, written) = mpsc::channel::<()>();
        let worker = self.worker.take();
        let finisher = thread::Builder::new().spawn(move || {
            drop(worker);
            drop(sender);
        });
        if finisher.is_ok() {
            let _ = written.recv_timeout(PATIENCE);
        }
    }
}
