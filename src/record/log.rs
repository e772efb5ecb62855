//! The log: one line per event on standard error, through a bounded queue.
//!
//! Whoever reads the other end of the pipe may stop reading; then lines are dropped and counted, and signing goes on.

use std::{
    io::{self, BufWriter},
    sync::mpsc,
    thread,
    time::Duration,
};
use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};

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

/// The log of this process. Lines that are still queued are written when it goes, if anybody reads them.
pub struct Log {
    worker: Option<WorkerGuard>,
    dropped: ErrorCounter,
}

impl Log {
    /// Starts the log.
    pub fn start(format: LogFormat, verbose: bool) -> Self {
        // The queue's thread flushes whenever the queue is empty: lines that come together leave together.
        let stderr = BufWriter::new(io::stderr());
        let (writer, worker) =
            NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUE_LINES).finish(stderr);
        let dropped = writer.error_counter();
        let level = if verbose { Level::DEBUG } else { Level::INFO };
        let subscriber =
            tracing_subscriber::fmt().with_writer(writer).with_max_level(level).with_target(false).with_ansi(false);
        // A second subscriber in one process would be a mistake in a test; the first one stays.
        let _ = match format {
            LogFormat::Json => tracing::subscriber::set_global_default(subscriber.json().flatten_event(true).finish()),
            LogFormat::Text => tracing::subscriber::set_global_default(subscriber.finish()),
        };
        Self { worker: Some(worker), dropped }
    }

    /// How many lines were dropped since the start.
    pub fn dropped_lines(&self) -> usize {
        self.dropped.dropped_lines()
    }

    /// A counter of the same.
    pub fn dropped(&self) -> ErrorCounter {
        self.dropped.clone()
    }
}

impl Drop for Log {
    /// The guard waits for the queue, and on a full one for standard output. Nobody waits for the guard.
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
