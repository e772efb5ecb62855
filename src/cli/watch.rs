//! How far a command is, and calls into a module that may never come back.

use super::{CliError, Exit};
use std::{
    io::{self, IsTerminal as _, Write as _},
    process,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

/// How long a module may be silent. Far above the slowest signature of any device, and what an operator waits.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the module's exit handlers may take, once the command has given up on it.
const PATIENCE_AT_EXIT: Duration = Duration::from_secs(3);

/// What the worker tells.
enum WorkerEvent<T> {
    Done(T),
    Step { done: usize, total: usize },
}

/// Tells that work goes on.
pub(super) struct Progress<'a>(&'a dyn Fn(usize, usize));

impl Progress<'_> {
    /// `done` steps of `total` are done.
    pub(super) fn step(&self, done: usize, total: usize) {
        (self.0)(done, total);
    }
}

/// Runs `work`, which calls a module, on a thread of its own, and gives up on it when it hangs. Shows its progress if
/// standard error is a terminal.
pub(super) fn watched<T: Send + 'static>(
    work: impl FnOnce(&Progress<'_>) -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let answer = shown(|show| watched_for(PATIENCE, work, show));
    answer.unwrap_or_else(|| {
        end_process_for_certain();
        let text = format!(
            "the PKCS#11 module has not answered for {} s; the device may have done what was asked or not: look with \
             `highwater pkcs11 keys list` when it answers again",
            PATIENCE.as_secs()
        );
        Err(CliError::new(Exit::Io, text))
    })
}

/// Runs `work`, and shows on standard error, if that is a terminal, how many of how many signatures are done.
pub(super) fn shown<T>(work: impl FnOnce(&mut dyn FnMut(usize, usize)) -> T) -> T {
    let terminal = io::stderr().is_terminal();
    let answer = work(&mut |done, total| {
        if terminal {
            let _ = write!(io::stderr(), "\r\x1b[Ksigned {done} of {total}");
        }
    });
    if terminal {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    answer
}

/// The answer of `work`, or `None` if it is silent for `patience`.
fn watched_for<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce(&Progress<'_>) -> T + Send + 'static,
    mut show: impl FnMut(usize, usize),
) -> Option<T> {
    let (sender, events) = channel();
    let worker = thread::Builder::new().name("module".into()).spawn(move || run(&sender, work));
    let worker = worker.expect("a command that has just started can start a thread");
    let answer = wait(&events, patience, &mut show);
    if let Err(RecvTimeoutError::Disconnected) = answer
        && let Err(panic) = worker.join()
    {
        std::panic::resume_unwind(panic);
    }
    answer.ok()
}

fn run<T>(sender: &Sender<WorkerEvent<T>>, work: impl FnOnce(&Progress<'_>) -> T) {
    // The receiver goes only when nobody waits any more.
    let answer = work(&Progress(&|done, total| {
        let _ = sender.send(WorkerEvent::Step { done, total });
    }));
    let _ = sender.send(WorkerEvent::Done(answer));
}

fn wait<T>(
    events: &Receiver<WorkerEvent<T>>,
    patience: Duration,
    show: &mut impl FnMut(usize, usize),
) -> Result<T, RecvTimeoutError> {
    loop {
        match events.recv_timeout(patience)? {
            WorkerEvent::Done(answer) => return Ok(answer),
            WorkerEvent::Step { done, total } => show(done, total),
        }
    }
}

/// A module that hangs can hang in the exit handlers of the process too.
fn end_process_for_certain() {
    let _ = thread::Builder::new().spawn(|| {
        thread::sleep(PATIENCE_AT_EXIT);
        process::abort();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_hangs_is_given_up_and_slow_work_is_not() {
        const MOMENT: Duration = Duration::from_millis(200);
        let hangs = watched_for(MOMENT, |_| thread::sleep(MOMENT * 100), |_, _| ());
        assert!(hangs.is_none());

        let mut seen = Vec::new();
        let slow = |progress: &Progress<'_>| {
            for step in 1..=5 {
                thread::sleep(MOMENT / 4);
                progress.step(step, 5);
            }
            "done"
        };
        assert_eq!(watched_for(MOMENT, slow, |done, total| seen.push((done, total))), Some("done"));
        assert_eq!(seen, [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
    }

    #[test]
    #[should_panic(expected = "inside the work")]
    fn a_panic_is_passed_on() {
        watched_for(PATIENCE, |_| panic!("inside the work"), |_, _| ());
    }
}
