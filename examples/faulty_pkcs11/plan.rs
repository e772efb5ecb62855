//! The plan of faults: what a call takes from it, and the faults that any call can play.

use super::spy::spy;
use cryptoki_sys::CK_RV;
use std::{
    env,
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
    process, ptr, thread,
    time::Duration,
};

/// A call's line of the plan, without its name. Empty if there is none.
pub(super) struct Step(String);

impl Step {
    pub(super) fn words(&self) -> Vec<&str> {
        self.0.split_whitespace().collect()
    }

    /// Plays a fault that any call can play, or makes the call.
    pub(super) fn or(&self, call: impl FnOnce() -> CK_RV) -> CK_RV {
        let text = self.0.split_once(' ').map_or("", |(_, text)| text);
        match self.words()[..] {
            ["rv" | "stuck", answer] => return number(answer),
            ["after", answer] => {
                call();
                return number(answer);
            }
            ["delay", time] => thread::sleep(millis(time)),
            ["postdelay", time] => {
                let answer = call();
                thread::sleep(millis(time));
                return answer;
            }
            ["hang"] => loop {
                thread::sleep(Duration::from_secs(1));
            },
            // SAFETY: none: it writes to an unmapped address, so that the kernel ends the process.
            ["segv"] => unsafe { ptr::without_provenance_mut::<u64>(8).write_volatile(0) },
            ["abort"] => process::abort(),
            ["exit", code] => process::exit(code.parse().unwrap_or(1)),
            ["print", ..] => {
                let mut out = io::stdout();
                let _ = out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush());
                let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
            }
            ["warn", ..] => {
                let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
            }
            ["spy"] => spy(),
            _ => {}
        }
        call()
    }
}

/// A number of the plan, in hex. One that cannot be read is an answer that no test expects.
pub(super) fn number(text: &str) -> CK_RV {
    CK_RV::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or(CK_RV::MAX)
}

fn millis(text: &str) -> Duration {
    Duration::from_millis(text.parse().unwrap_or_default())
}

pub(super) fn plan_file(extension: &str) -> Option<PathBuf> {
    env::var_os("HIGHWATER_FAULTY_PLAN").map(|path| PathBuf::from(path).with_extension(extension))
}

/// Takes the line for this call from the plan, and notes the call. Without a plan there is no fault.
pub(super) fn next(call: &str) -> Step {
    let step = Step(take(call).ok().flatten().unwrap_or_default());
    note(&format!("{call} {}", step.0));
    step
}

/// The same for what is asked very often: noted only if there is a line for it.
pub(super) fn next_if_planned(name: &str) -> Option<Step> {
    let step = take(name).ok().flatten().map(Step)?;
    note(&format!("{name} {}", step.0));
    Some(step)
}

fn take(call: &str) -> io::Result<Option<String>> {
    let path = env::var_os("HIGHWATER_FAULTY_PLAN").map(PathBuf::from).ok_or(io::ErrorKind::NotFound)?;
    let lock = File::create(path.with_extension("lock"))?;
    lock.lock()?;
    let plan = fs::read_to_string(&path)?;
    let lines: Vec<&str> = plan.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let (stays, line) = line.strip_prefix("every ").map_or((false, *line), |line| (true, line));
        if let Some(rest) = for_call(line, call) {
            if !stays {
                let mut rest = lines.clone();
                rest.remove(index);
                let aside = path.with_extension("aside");
                fs::write(&aside, rest.iter().map(|line| format!("{line}\n")).collect::<String>())?;
                fs::rename(&aside, &path)?;
            }
            return Ok(Some(rest));
        }
        if !stays {
            break;
        }
    }
    Ok(None)
}

/// What a line says to do, if it is for this call.
fn for_call(line: &str, call: &str) -> Option<String> {
    let line = match line {
        "sign nolen" => "length rv 0x7",
        "sign oneshot" => "length end",
        "sign lenzero" => "length zero",
        other => other,
    };
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    (name == call).then(|| rest.to_owned())
}

/// Notes what happened. If a note cannot be written, the test that looks for it fails.
pub(super) fn note(text: &str) {
    let log = plan_file("log").map(|path| File::options().create(true).append(true).open(path));
    if let Some(Ok(mut log)) = log {
        let _ = log.write_all(format!("{}\n", text.trim_end()).as_bytes());
    }
}
