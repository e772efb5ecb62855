//! The state hook: an operator's program that reports, at start, how far a chain has come.
//!
//! tmkms documents it (`{"latest_block_height": "347290"}` on standard output) but never got an answer from it. Here
//! the reported height counts as committed: nothing at or below it is signed.

use crate::{config::HookConfig, process::foreign::ForeignText};
use highwater_core::{
    consensus::{HEIGHT_MAX, Hrs},
    watermark::Mark,
};
use serde_json::Value;
use std::{
    fmt, io,
    os::fd::AsFd,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How many heights a hook may raise a mark; tmkms's limit. Otherwise a hook that asks the wrong node would stop the
/// validator from signing until the chain reaches that height.
pub const LEAP_MAX: u64 = 9000;

/// The mark for a chain that has committed `height`. `None` if it is not above `last`.
pub fn raised(height: u64, last: &Mark) -> Result<Option<Mark>, HookError> {
    let mark = Mark::floor(Hrs::end_of(height));
    if mark.hrs <= last.hrs || height == 0 {
        return Ok(None);
    }
    let fresh = last.hrs == Hrs::GENESIS;
    if !fresh && height - last.hrs.height > LEAP_MAX {
        return Err(HookError::Leap { height, last: last.hrs });
    }
    Ok(Some(mark))
}

/// Runs the hook and returns the height that it reports.
pub fn ask(hook: &HookConfig) -> Result<u64, HookError> {
    let (program, arguments) = hook.command.split_first().expect("the configuration requires a program");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| HookError::Spawn { program: program.clone(), error })?;
    let deadline = Instant::now() + hook.timeout;
    let answer = listen(&mut child, deadline);
    if !matches!(answer, Ok((_, _, Some(_)))) {
        // It is too late, whatever it still does. An error means that it has just ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
    match answer.map_err(HookError::Output)? {
        (text, _, Some(status)) if status.success() => height_in(&text).ok_or(HookError::Answer),
        (_, said, Some(status)) => Err(HookError::Status { status, said: ForeignText::from_bytes(&said) }),
        (_, _, None) => Err(HookError::Timeout { after: hook.timeout }),
    }
}

/// The limit for a hook's output.
const OUTPUT_MAX_BYTES: usize = 64 * 1024;

/// How long to wait before reading again.
const STEP: Duration = Duration::from_millis(5);

/// Returns the program's standard output, its standard error and its exit status, which is `None` at the deadline. Both
/// pipes are read while the program runs: otherwise a program that fills a pipe would wait for us, and we for it. This
/// uses no thread: a program started by the hook may hold a pipe open for ever, and a thread that waits for it would
/// stay outside the sandbox.
fn listen(child: &mut Child, deadline: Instant) -> io::Result<(Vec<u8>, Vec<u8>, Option<ExitStatus>)> {
    let mut answer = Heard::new(child.stdout.take().expect("stdout is piped"), OUTPUT_MAX_BYTES)?;
    let mut said = Heard::new(child.stderr.take().expect("stderr is piped"), ForeignText::MAX_BYTES)?;
    loop {
        // The status is read first: if the program has ended, its whole output is in the pipes.
        let status = child.try_wait()?;
        said.hear()?;
        let answered = answer.hear()?;
        if (answered && status.is_some()) || Instant::now() >= deadline {
            return Ok((answer.text, said.text, status.filter(|_| answered)));
        }
        thread::sleep(STEP);
    }
}

/// What was read from a pipe so far. Bytes beyond the limit are read and dropped.
struct Heard<R> {
    pipe: R,
    text: Vec<u8>,
    limit: usize,
}

impl<R: io::Read + AsFd> Heard<R> {
    fn new(pipe: R, limit: usize) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&pipe)?;
        rustix::fs::fcntl_setfl(&pipe, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self { pipe, text: Vec::new(), limit })
    }

    /// Reads what is available, at most as much as a pipe holds. Returns whether the pipe has ended.
    fn hear(&mut self) -> io::Result<bool> {
        const PIECES: usize = 64;
        let mut piece = [0; 4096];
        for _ in 0..PIECES {
            match self.pipe.read(&mut piece) {
                Ok(0) => return Ok(true),
                Ok(length) => {
                    let room = self.limit.saturating_sub(self.text.len());
                    self.text.extend_from_slice(&piece[..length.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// `latest_block_height`, as a string or a number.
fn height_in(text: &[u8]) -> Option<u64> {
    let json: Value = serde_json::from_slice(text).ok()?;
    let height = match &json["latest_block_height"] {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    };
    height.filter(|height| *height <= HEIGHT_MAX)
}

/// Why a hook gave no usable height.
#[derive(Debug)]
pub enum HookError {
    /// It printed something else.
    Answer,
    /// The process that runs it has ended.
    Gone(io::Error),
    /// The height is too far above the mark.
    Leap {
        height: u64,
        last: Hrs,
    },
    /// Its output could not be read.
    Output(io::Error),
    /// The text of an error in the process that runs it.
    Reported(String),
    Spawn {
        program: String,
        error: io::Error,
    },
    Status {
        status: ExitStatus,
        /// What it wrote to standard error.
        said: ForeignText,
    },
    Timeout {
        after: Duration,
    },
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer => f.write_str(r#"the state hook did not print {"latest_block_height": "H"}"#),
            Self::Gone(error) => write!(f, "the process that runs the state hook has ended: {error}"),
            Self::Leap { height, last } => write!(
                f,
                "the state hook reports height {height}, more than {LEAP_MAX} above the mark {last}. If it is right, \
                 stop the signer and run `highwater state raise --height {height}`"
            ),
            Self::Output(error) => write!(f, "cannot read the state hook's output: {error}"),
            Self::Spawn { program, error } => write!(
                f,
                "cannot start the state hook {program}: {error}. Correct `cmd` of the state hook, or make it a program that this \
                 user can run"
            ),
            Self::Status { status, said } if said.is_empty() => write!(f, "the state hook failed: {status}"),
            Self::Status { status, said } => write!(f, "the state hook failed: {status}; it said: {said}"),
            Self::Reported(why) => f.write_str(why),
            Self::Timeout { after } => {
                write!(
                    f,
                    "the state hook did not answer within {} s: raise `timeout_secs` if it needs longer",
                    after.as_secs()
                )
            }
        }
    }
}

impl std::error::Error for HookError {}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_core::consensus::Step;

    fn hook(script: &str, timeout: Duration) -> HookConfig {
        HookConfig { command: vec!["/bin/sh".into(), "-c".into(), script.into()], timeout, fail_closed: true }
    }

    fn shell(script: &str) -> Result<u64, HookError> {
        ask(&hook(script, Duration::from_secs(20)))
    }

    fn at(height: u64) -> Mark {
        Mark::floor(Hrs { height, round: 0, step: Step::Prevote })
    }

    #[test]
    fn the_documented_answer_is_understood() {
        assert_eq!(shell(r#"echo '{"latest_block_height": "347290"}'"#).unwrap(), 347_290);
        assert_eq!(shell(r#"echo '{"latest_block_height": 5, "other": true}'"#).unwrap(), 5);
    }

    #[test]
    fn a_program_that_prints_a_lot_does_not_hang() {
        let padded = r#"printf '{"latest_block_height":"7","x":"'; head -c 60000 /dev/zero | tr '\0' x; printf '"}'"#;
        assert_eq!(shell(padded).unwrap(), 7);
        assert!(matches!(
            shell("head -c 200000 /dev/zero | tr '\\0' x"),
            Err(HookError::Answer | HookError::Status { .. })
        ));
    }

    #[test]
    fn whatever_is_no_height_is_an_error() {
        for script in ["true", "echo 5", "echo '{}'", r#"echo '{"latest_block_height": "-1"}'"#] {
            assert!(matches!(shell(script), Err(HookError::Answer)), "{script}");
        }
        assert!(matches!(shell(r#"echo '{"latest_block_height": "5"}'; exit 3"#), Err(HookError::Status { .. })));
        let missing = HookConfig { command: vec!["/nonexistent".into()], ..hook("", Duration::from_secs(1)) };
        assert!(matches!(ask(&missing), Err(HookError::Spawn { .. })));
    }

    #[test]
    fn what_a_hook_complains_about_is_part_of_the_error_and_cannot_pretend_to_be_more() {
        let error = shell(r#"printf 'no node\n2026 INFO signed\033[2J' >&2; exit 3"#).unwrap_err().to_string();
        assert!(error.ends_with(r"exit status: 3; it said: no node\n2026 INFO signed\u{1b}[2J"), "{error}");
        // More output than a pipe holds, and a program that outlives the hook.
        let error = shell("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 3").unwrap_err().to_string();
        assert!(error.len() < ForeignText::MAX_BYTES + 100, "{} bytes", error.len());
        let begin = Instant::now();
        let error = shell("echo left >&2; sleep 5 >/dev/null & exit 3").unwrap_err().to_string();
        assert!(error.ends_with("it said: left") && begin.elapsed() < Duration::from_secs(4), "{error}");
    }

    #[test]
    fn a_slow_program_is_killed() {
        for script in ["sleep 60", r#"exec 1>&-; sleep 60"#] {
            let begin = Instant::now();
            let result = ask(&hook(script, Duration::from_millis(200)));
            assert!(matches!(result, Err(HookError::Timeout { .. })), "{script}");
            assert!(begin.elapsed() < Duration::from_secs(20), "{script}");
        }
    }

    #[test]
    fn the_named_height_is_closed_whole_and_never_moves_a_mark_back() {
        assert_eq!(raised(7, &at(5)).unwrap(), Some(Mark::floor(Hrs::end_of(7))));
        assert_eq!(raised(5, &at(5)).unwrap(), Some(Mark::floor(Hrs::end_of(5))));
        assert_eq!(raised(4, &at(5)).unwrap(), None);
        assert_eq!(raised(5, &Mark::floor(Hrs::end_of(5))).unwrap(), None);
        assert_eq!(raised(0, &Mark::NEVER_SIGNED).unwrap(), None);
    }

    #[test]
    fn a_leap_is_refused_unless_the_mark_is_fresh() {
        assert!(raised(5 + LEAP_MAX, &at(5)).unwrap().is_some());
        assert!(matches!(raised(6 + LEAP_MAX, &at(5)), Err(HookError::Leap { .. })));
        assert!(raised(20_000_000, &Mark::NEVER_SIGNED).unwrap().is_some());
    }
}
