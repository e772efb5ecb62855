//! Runs an errand in a process of its own, and says what became of it.
//!
//! A module is C code from its vendor. In a process of its own its output cannot mix with ours, its crash is an error
//! with a name, and it can be given up. Each of its calls has its own time; a login has no limit, because one that is
//! cut off may count as a wrong PIN.

use super::errand::{Confinement, Errand, Event, Order, Outcome, WORKER_COMMAND};
use crate::{
    cli::{CliError, Exit, output, watch::shown},
    config::pkcs11::spec::TokenSpec,
    keyring::pkcs11::{calls, gate::CommandLogin, reach::ALLOWS},
    process::{
        frames::{read_json, write_frame, write_json},
        helper::own_program,
        last_words::{LastWords, end_of},
    },
};
use std::{
    env, io,
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::Path,
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long one call may take. Far longer than the slowest answer of any device; operators wait that long.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the module may take to close, once its answer is known.
const PATIENCE_AT_END: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

/// Which variables the process gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Environment {
    /// Those of the profile and the section, as the child that signs.
    AsSigner,
    /// All of ours: without a profile nobody knows which ones the module needs.
    Ours,
}

/// What an errand needs besides its order.
#[derive(Clone, Copy)]
pub(super) struct Secrets<'a> {
    /// Empty if there is none.
    pub(super) pin: &'a [u8],
    /// The key to import; else empty.
    pub(super) key: &'a [u8],
    /// The variables that hold a PIN.
    pub(super) variables: &'a [String],
    /// Where the PIN comes from, in words.
    pub(super) source: &'a str,
    /// The directory that remembers which PIN was refused.
    pub(super) notes: Option<&'a Path>,
}

impl Secrets<'_> {
    pub(super) const NONE: Self = Self { pin: &[], key: &[], variables: &[], source: "", notes: None };
}

/// An outcome, and the process that is still closing its module. Print the outcome, then drop this.
pub(super) struct Finished {
    pub(super) outcome: Outcome,
    process: Closing,
}

/// Waits for the process of an errand that is done.
pub(super) struct Closing {
    process: Child,
    module: String,
}

impl Finished {
    /// The outcome, and what waits for the process.
    pub(super) fn split(self) -> (Outcome, Closing) {
        (self.outcome, self.process)
    }
}

/// Runs the errand. An error says what the module's process was doing, how it ended, and its last words.
pub(super) fn run(order: &Order, environment: Environment, secrets: Secrets<'_>) -> Result<Finished, CliError> {
    let mut process = Process::start(order, environment, secrets)
        .map_err(|error| CliError::io("cannot start a process for the PKCS#11 module", &error))?;
    let pin = Some(secrets.pin).filter(|pin| !pin.is_empty());
    let mut login = CommandLogin::new(secrets.notes.map(Path::to_owned), pin, secrets.source);
    let listened = shown(|show| process.listen(PATIENCE, &mut login, show));
    let module = order.spec.module.display().to_string();
    let error = match listened {
        Ok(Ok(outcome)) => return Ok(Finished { outcome, process: Closing { process: process.child, module } }),
        Ok(Err(error)) => error,
        Err(Silence::Ended) => {
            let end = process.wait_for(PATIENCE_AT_END).map_or("closed its stream".to_owned(), end_of);
            let doing = process.call.as_deref().map_or(String::new(), |call| format!(" while it was asked to {call}"));
            CliError::new(Exit::Io, format!("the PKCS#11 module {module} crashed: its process {end}{doing}"))
        }
        Err(Silence::Late) => {
            let doing = process.call.as_deref().unwrap_or("start").to_owned();
            let text =
                format!("the PKCS#11 module {module} has not answered for {} s, asked to {doing}", PATIENCE.as_secs());
            CliError::new(Exit::Io, text)
        }
    };
    let is_lost = process.is_lost;
    let words = process.end(secrets.pin);
    Err(with(error, words.as_deref(), is_lost && order.errand.changes()))
}

/// Adds the module's words, and the doubt that an unfinished change leaves.
fn with(mut error: CliError, words: Option<&str>, in_doubt: bool) -> CliError {
    if let Some(words) = words {
        let general = error.message.find(ALLOWS).unwrap_or(error.message.len());
        error.message.insert_str(general, &format!("; the module's last words: {words}"));
    }
    if in_doubt {
        error.message += "; the device may or may not have done what was asked: look with `highwater pkcs11 keys list`";
    }
    error
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
enum Silence {
    Ended,
    Late,
}

struct Process {
    child: Child,
    stream: UnixStream,
    words: LastWords,
    /// The call that the module has not answered yet.
    call: Option<String>,
    /// It ended or was given up without an answer.
    is_lost: bool,
}

impl Process {
    fn start(order: &Order, environment: Environment, secrets: Secrets<'_>) -> io::Result<Self> {
        let (mut stream, theirs) = UnixStream::pair()?;
        let mut command = own_program(WORKER_COMMAND, theirs);
        // Ctrl-C ends the command, not a login or a change in hand.
        command.process_group(0);
        if environment == Environment::AsSigner {
            command.env_clear();
            let names = order.spec.variables(secrets.variables);
            command.envs(names.filter_map(|name| Some((name, env::var_os(name)?))));
        }
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let words = LastWords::of(child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?)?;
        write_json(&mut stream, order)?;
        write_frame(&mut stream, secrets.pin)?;
        write_frame(&mut stream, secrets.key)?;
        Ok(Self { child, stream, words, call: None, is_lost: false })
    }

    /// Waits for the outcome, `patience` for each call of the module, and for a login as long as it takes.
    fn listen(
        &mut self,
        patience: Duration,
        login: &mut CommandLogin<'_>,
        show: &mut dyn FnMut(usize, usize),
    ) -> Result<Result<Outcome, CliError>, Silence> {
        loop {
            let limit = (self.call.as_deref() != Some(calls::LOGIN)).then_some(patience);
            let set = self.stream.set_read_timeout(Some(limit.unwrap_or(patience)));
            let event = set.and_then(|()| read_json(&mut self.stream));
            match event {
                Ok(Event::Calls(call)) => self.call = Some(call),
                Ok(Event::LoginBegins(token)) => {
                    let may = login.begins(token);
                    // If the process has ended, the next read shows it.
                    let _ = write_json(&mut self.stream, &may);
                }
                Ok(Event::LoginEnded(outcome)) => login.ended(&outcome),
                Ok(Event::Signed { done, total }) => show(done, total),
                Ok(Event::Done(outcome)) => return Ok(Ok(outcome)),
                Ok(Event::Failed { exit, text }) => return Ok(Err(Event::error(exit, text))),
                Err(error) if is_late(&error) && limit.is_none() => output::note(&format!(
                    "the token has not answered the login for {} s: still waiting, because a login that is cut off may \
                     count as a wrong PIN",
                    patience.as_secs()
                )),
                Err(error) => {
                    self.is_lost = true;
                    return Err(if is_late(&error) { Silence::Late } else { Silence::Ended });
                }
            }
        }
    }

    fn wait_for(&mut self, patience: Duration) -> Option<ExitStatus> {
        wait(&mut self.child, patience)
    }

    /// Ends the process, and returns its last words. One that has answered gets the time to close its token.
    fn end(mut self, secret: &[u8]) -> Option<String> {
        if self.is_lost || self.wait_for(PATIENCE_AT_END).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.words.shown(secret).map(|text| text.to_string())
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// The end of a process, if it comes in time.
fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(PAUSE),
            _ => return None,
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let text = match wait(&mut self.process, PATIENCE_AT_END) {
            Some(status) if status.success() => return,
            Some(status) => format!("its process {}", end_of(status)),
            None => {
                let _ = self.process.kill();
                let _ = self.process.wait();
                format!("it did not come to an end within {} s and was stopped", PATIENCE_AT_END.as_secs())
            }
        };
        output::note(&format!(
            "note: what is printed above is done. The module {} failed only when it was closed: {text}",
            self.module
        ));
    }
}

/// Whether the sandbox is why the module does not start, and what it keeps from it. `None` if it starts in the sandbox
/// too, or not even outside. Needs no PIN: it only loads the module, initialises it and lists its tokens.
pub(in crate::cli) fn refused_by_sandbox(
    spec: &TokenSpec,
    switches: crate::process::sandbox::Switches,
) -> Option<String> {
    let starts = |confinement: Confinement, network: bool| {
        let mut spec = spec.clone();
        spec.profile.module.network |= network;
        let order = Order { errand: Errand::ListTokens, spec, confinement };
        run(&order, Environment::AsSigner, Secrets::NONE)
            .is_ok_and(|finished| matches!(&finished.outcome, Outcome::Tokens(listing) if !listing.tokens.is_empty()))
    };
    let within = |switches| Confinement::AsSigner(switches);
    if starts(within(switches), false) || !starts(Confinement::None, false) {
        return None;
    }
    let what = if starts(within(switches.without_landlock()), false) {
        "a file or directory: name those that its manual lists with `files` in its section"
    } else if starts(within(switches), true) {
        "the network: the profile says that it needs none. Copy the profile, set network = true in it, and name the copy"
    } else if starts(within(switches.without_seccomp()), false) {
        "a system call, perhaps a socket of a service on this machine: if its manual says so, copy the profile and set \
         sockets = true in it"
    } else {
        "starting a program: no module may, because a program that it starts could do what it may not. Ask the vendor for a \
         setting without it"
    };
    Some(format!("outside of its sandbox the module starts. What the sandbox keeps from it is {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that says `events`, each after its pause, and then nothing.
    fn listen(patience: Duration, events: Vec<(u64, Event)>) -> Result<Result<Outcome, CliError>, Silence> {
        let (stream, mut theirs) = UnixStream::pair().unwrap();
        let child = own_program("none", UnixStream::pair().unwrap().0).stderr(Stdio::null()).spawn().unwrap();
        let words = LastWords::of(io::empty()).unwrap();
        let mut process = Process { child, stream, words, call: None, is_lost: false };
        let speaker = thread::spawn(move || {
            for (pause, event) in events {
                thread::sleep(Duration::from_millis(pause));
                let _ = write_json(&mut theirs, &event);
            }
            theirs
        });
        let answer = process.listen(patience, &mut CommandLogin::new(None, None, ""), &mut |_, _| ());
        let _ = process.child.kill();
        let _ = process.child.wait();
        drop(speaker);
        answer
    }

    fn calls(what: &str) -> Event {
        Event::Calls(what.to_owned())
    }

    #[test]
    fn each_call_has_its_own_time_and_a_login_has_no_limit() {
        const MOMENT: Duration = Duration::from_millis(300);
        let done = || Event::Done(Outcome::Keys(Vec::new()));
        let many = (0..6).map(|_| (100, calls("read an object"))).chain([(100, done())]).collect();
        assert!(listen(MOMENT, many).unwrap().is_ok(), "longer than the patience for one");
        let slow_login = vec![(0, calls(calls::LOGIN)), (800, calls("search the token")), (0, done())];
        assert!(listen(MOMENT, slow_login).unwrap().is_ok());
        let slow_call = vec![(0, calls(calls::LOGIN)), (0, calls("search the token")), (800, done())];
        assert_eq!(listen(MOMENT, slow_call).unwrap_err(), Silence::Late);
        let failed = Event::failed(CliError::new(Exit::NoInput, "no key"));
        assert_eq!(listen(MOMENT, vec![(0, failed)]).unwrap().unwrap_err().exit, Exit::NoInput);
    }
}
