//! The state hook: an operator's program that tells, at start, how far a chain has come.
//!
//! tmkms documents it (`{"latest_block_height": "347290"}` on standard output) but never got an answer from it. Here
//! the height it names counts as committed: nothing at or below it is signed.

use crate::{
    config::HookConfig,
    consensus::{HEIGHT_MAX, Hrs},
    watermark::Mark,
};
use serde_json::Value;
use std::{
    fmt,
    io::{self, Read as _},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// How far above a mark a hook may raise it, in heights; tmkms's limit. A hook that asks a wrong node would otherwise
/// silence the validator until the chain gets there.
pub const LEAP_MAX: u64 = 9000;

/// The mark for a chain that has committed `height`, if that is above `last`.
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

/// Runs the hook and returns the height that it names.
pub fn ask(hook: &HookConfig) -> Result<u64, HookError> {
    let (program, arguments) = hook.command.split_first().expect("the configuration requires a program");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| HookError::Spawn { program: program.clone(), error })?;
    let deadline = Instant::now() + hook.timeout;
    let mut stdout = child.stdout.take().expect("stdout is piped");
    // Read while it runs: a program that fills the pipe would wait for us, and we for it.
    let (sender, answer) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.by_ref().take(OUTPUT_MAX_BYTES).read_to_string(&mut text);
        // The receiver is gone when the deadline has passed.
        let _ = sender.send(read.map(|_| text));
    });
    let text = answer.recv_timeout(hook.timeout).map_err(|error| match error {
        RecvTimeoutError::Timeout => HookError::Timeout { after: hook.timeout },
        RecvTimeoutError::Disconnected => unreachable!("the reader always answers"),
    });
    let status = text.is_ok().then(|| wait_until(&mut child, deadline)).flatten();
    if status.is_none() {
        // It is late, whatever it still does. An error means that it has just ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = text?.map_err(HookError::Output)?;
    match status {
        Some(status) if status.success() => height_in(&text).ok_or(HookError::Answer),
        Some(status) => Err(HookError::Status(status)),
        None => Err(HookError::Timeout { after: hook.timeout }),
    }
}

/// What a hook may print.
const OUTPUT_MAX_BYTES: u64 = 64 * 1024;

fn wait_until(child: &mut std::process::Child, deadline: Instant) -> Option<ExitStatus> {
    const STEP: Duration = Duration::from_millis(5);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(STEP);
    }
}

/// `latest_block_height`, as a string or a number.
fn height_in(text: &str) -> Option<u64> {
    let json: Value = serde_json::from_str(text).ok()?;
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
        /// The height.
        height: u64,
        /// The mark.
        last: Hrs,
    },
    /// Its output could not be read.
    Output(io::Error),
    /// It could not be started.
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        error: io::Error,
    },
    /// It failed.
    Status(ExitStatus),
    /// What the process that runs it says.
    Told(String),
    /// It took too long.
    Timeout {
        /// How long it had.
        after: Duration,
    },
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer => f.write_str(r#"the state hook should print {"latest_block_height": "H"}"#),
            Self::Gone(error) => write!(f, "the process that runs the state hook has ended: {error}"),
            Self::Leap { height, last } => write!(
                f,
                "the state hook names height {height}, more than {LEAP_MAX} above the mark {last}. If it is right, stop \
                 the signer and run `highwater state raise --height {height}`"
            ),
            Self::Output(error) => write!(f, "the state hook's output cannot be read: {error}"),
            Self::Spawn { program, error } => write!(f, "the state hook {program} cannot be started: {error}"),
            Self::Status(status) => write!(f, "the state hook failed: {status}"),
            Self::Told(why) => f.write_str(why),
            Self::Timeout { after } => {
                write!(f, "the state hook did not answer within {} s; `timeout_secs` gives it longer", after.as_secs())
            }
        }
    }
}

impl std::error::Error for HookError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::Step;

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
            Err(HookError::Answer | HookError::Status(_))
        ));
    }

    #[test]
    fn whatever_is_no_height_is_an_error() {
        for script in ["true", "echo 5", "echo '{}'", r#"echo '{"latest_block_height": "-1"}'"#] {
            assert!(matches!(shell(script), Err(HookError::Answer)), "{script}");
        }
        assert!(matches!(shell(r#"echo '{"latest_block_height": "5"}'; exit 3"#), Err(HookError::Status(_))));
        let missing = HookConfig { command: vec!["/nonexistent".into()], ..hook("", Duration::from_secs(1)) };
        assert!(matches!(ask(&missing), Err(HookError::Spawn { .. })));
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
