//! The spawner: a small process that keeps the PINs and starts the children, which call the PKCS#11 modules.
//!
//! It is started before anything else, so that the signer itself never starts a program or sees a PIN. The signer asks
//! for the child of a token by the token's number, and gets one end of a socket pair. The child on the other end
//! already has its token and its PIN. Asking again replaces the child: the old one is killed.

use super::{
    locked::Locked,
    login_memory::{LoginMemory, LoginOutcome, PinToSend, TokenBeforeLogin},
    pin,
    protocol::SpawnerRequest,
};
use crate::{
    config::{SecretSource, pkcs11::spec::TokenSpec},
    keyring::device::Trouble,
    process::{
        descriptors, environment,
        frames::{read_json, write_frame, write_json},
        helper::{Helper, REFUSED, own_program, receive_descriptor, send_descriptor, standard_input},
        last_words::{LastWords, end_of},
        sandbox::{self, Switches},
    },
};
use serde::{Deserialize, Serialize};
use std::{
    env,
    io::{self, Write as _},
    mem,
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

/// The hidden command that becomes the spawner.
pub const SPAWNER_COMMAND: &str = "hsm-spawner";
/// The hidden command that becomes the child of a token.
pub const CHILD_COMMAND: &str = "hsm-child";

/// How long a login may go on after the signer has ended: one that is cut off can cost an attempt at the PIN.
const PATIENCE_AT_END: Duration = Duration::from_secs(20);
/// How long the file of a PIN may take. All tokens wait for it.
const PATIENCE_FOR_PIN: Duration = Duration::from_secs(1);
/// A proven PIN that got no clear answer so often in a row may have been changed on the token.
const DOUBTS_OF_A_PROVEN: u32 = 2;
/// How long the spawner may take to start a child, or to note a login on a slow disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// A token and the source of its PIN.
#[derive(Debug, Deserialize, Serialize)]
pub struct Plan {
    pub spec: TokenSpec,
    /// The source of its PIN. `None` for a token with its own keypad.
    pub pin: Option<SecretSource>,
    /// Where to remember which PIN was refused.
    pub memory: Option<PathBuf>,
}

impl Plan {
    /// The environment variable that holds the PIN, if one does.
    pub fn pin_variable(&self) -> Option<&str> {
        self.pin.as_ref()?.variable()
    }

    /// The descriptor that holds the PIN, if one does.
    pub fn pin_descriptor(&self) -> Option<i32> {
        self.pin.as_ref()?.descriptor()
    }
}

/// The signer's side of the spawner. The spawner and its children end when this is dropped.
pub struct Spawner(Helper);

impl Spawner {
    /// Starts the spawner with a plan for every token.
    pub fn start(plans: &[Plan], switches: Switches) -> io::Result<Self> {
        let helper = Helper::start(SPAWNER_COMMAND)?;
        write_json(&mut *helper.control(), &switches)?;
        write_json(&mut *helper.control(), &plans)?;
        helper.control().set_read_timeout(Some(PATIENCE))?;
        Ok(Self(helper))
    }

    /// Calls `on_end` from another thread when the spawner has ended. From then on, no child can be replaced.
    pub fn watch(&self, on_end: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.0.watch(on_end)
    }

    /// How the child of the token with this number ended, if it did, and its module's last words. Begins with "; ", or is
    /// empty. Waits a moment for what the child still does: never ask between a request and its answer.
    pub fn last_words(&self, number: usize) -> String {
        const PATIENCE: Duration = Duration::from_millis(300);
        const PAUSE: Duration = Duration::from_millis(20);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let words = self.ask(&SpawnerRequest::LastWords(number_of(number)), |mut control| {
                Ok(Ok(read_json::<Words>(&mut control)?))
            });
            match words {
                // The spawner answers at once, so other tokens can ask it meanwhile.
                Ok(words) if !words.complete && Instant::now() < deadline => thread::sleep(PAUSE),
                words => return words.map(|words| words.text).unwrap_or_default(),
            }
        }
    }

    /// Starts a new child for the token with this number.
    pub fn child(&self, number: usize) -> Result<UnixStream, Trouble> {
        self.ask(&SpawnerRequest::Child(number_of(number)), |mut control| {
            Ok(match receive_descriptor(control)? {
                Some(stream) => Ok(stream.into()),
                // The PIN cannot be read yet, or the system cannot start a program now. Neither costs an attempt at the
                // PIN.
                None => Err(Trouble::Broken(read_json::<String>(&mut control)?.into())),
            })
        })
    }

    /// Notes that the child of the token with this number logs in now. The error says why it must not.
    pub(super) fn login_begins(&self, number: usize, token: &TokenBeforeLogin) -> Result<(), Trouble> {
        self.ask(&SpawnerRequest::LoginBegins(number_of(number), token.clone()), |mut control| {
            let answer: Result<(), String> = read_json(&mut control)?;
            Ok(answer.map_err(|why| Trouble::Fatal(why.into())))
        })
    }

    /// Notes what became of that login. If the spawner has ended, the next request shows it.
    pub(super) fn login_ended(&self, number: usize, token: &TokenBeforeLogin, outcome: &LoginOutcome) {
        let request = SpawnerRequest::LoginEnded(number_of(number), token.clone(), outcome.clone());
        let _ = self.ask(&request, |_| Ok(Ok(())));
    }

    fn ask<T>(
        &self,
        request: &SpawnerRequest,
        receive: impl FnOnce(&UnixStream) -> io::Result<Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        let control = self.0.control();
        let answer = write_json(&mut &*control, request).and_then(|()| receive(&control));
        answer.unwrap_or_else(|error| {
            // A late answer would be mistaken for the answer to the next request, so the spawner cannot be used any
            // more.
            let _ = control.shutdown(Shutdown::Both);
            Err(Trouble::Broken(format!("the HSM spawner process has ended: {error}").into()))
        })
    }
}

fn number_of(number: usize) -> u32 {
    u32::try_from(number).expect("there are few tokens")
}

/// The program of the hidden command `hsm-spawner`: its control stream is standard input.
pub fn run() -> io::Result<()> {
    let mut control = standard_input()?;
    let switches: Switches = read_json(&mut control)?;
    sandbox::confine_spawner(switches).map_err(io::Error::other)?;
    let plans: Vec<Plan> = read_json(&mut control)?;
    let secret: Arc<[String]> = plans.iter().filter_map(Plan::pin_variable).map(str::to_owned).collect();
    // The children must not have what this process was started with, for it to read PINs from.
    descriptors::close_on_exec(plans.iter().filter_map(Plan::pin_descriptor));
    let token = |plan| TokenChild::new(plan, switches, Arc::clone(&secret));
    let mut tokens: Vec<TokenChild> = plans.into_iter().map(token).collect();
    environment::forget(secret.iter().map(String::as_str))?;
    loop {
        let request = match read_json(&mut control) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                wait_for_logins(&mut tokens);
                return Ok(());
            }
            other => other?,
        };
        let (SpawnerRequest::Child(number)
        | SpawnerRequest::LastWords(number)
        | SpawnerRequest::LoginBegins(number, _)
        | SpawnerRequest::LoginEnded(number, ..)) = request;
        let index = usize::try_from(number).ok();
        let Some(token) = index.and_then(|index| tokens.get_mut(index)) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "unknown token number"));
        };
        match request {
            SpawnerRequest::Child(_) => match token.start_child() {
                Ok(stream) => send_descriptor(&control, &stream)?,
                Err(why) => {
                    control.write_all(&[REFUSED])?;
                    write_json(&mut control, &why)?;
                }
            },
            SpawnerRequest::LastWords(_) => write_json(&mut control, &token.last_words())?,
            SpawnerRequest::LoginBegins(_, shown) => write_json(&mut control, &token.begin_login(&shown))?,
            SpawnerRequest::LoginEnded(_, shown, outcome) => token.end_login(&shown, &outcome),
        }
    }
}

/// Lets the logins in progress end. Their children end after that by themselves, as their signer has gone. Every PIN was
/// noted as one without an answer before it was sent, or has been accepted before.
fn wait_for_logins(tokens: &mut [TokenChild]) {
    let deadline = Instant::now() + PATIENCE_AT_END;
    while tokens.iter_mut().any(TokenChild::is_logging_in) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
}

/// What is known of the end of a child.
#[derive(Deserialize, Serialize)]
struct Words {
    text: String,
    /// Nothing can come any more.
    complete: bool,
}

/// A token, its PIN and its child.
struct TokenChild {
    spec: TokenSpec,
    switches: Switches,
    pin: Result<Option<Locked>, String>,
    /// Where the PIN comes from. A file is read again until the token has accepted its PIN.
    source: Option<SecretSource>,
    /// Whether the token has accepted this PIN.
    proven: bool,
    /// How often it was sent since the token has accepted it, without a clear answer.
    doubts: u32,
    logging_in: bool,
    /// The thread that reads the file of the PIN.
    reading: Option<mpsc::Receiver<Result<Option<Locked>, String>>>,
    memory: LoginMemory,
    /// The environment variables that held the PIN of any token.
    secret: Arc<[String]>,
    child: Option<Child>,
    /// What the child's module writes on standard error.
    words: Option<LastWords>,
    /// Killed children that may not have ended yet.
    ended: Vec<Child>,
}

impl TokenChild {
    fn new(plan: Plan, switches: Switches, secret: Arc<[String]>) -> Self {
        let pin = read_pin(plan.pin.as_ref());
        Self {
            spec: plan.spec,
            switches,
            pin,
            source: plan.pin,
            proven: false,
            doubts: 0,
            logging_in: false,
            reading: None,
            memory: LoginMemory::new(plan.memory),
            secret,
            child: None,
            words: None,
            ended: Vec::new(),
        }
    }

    /// Reads the PIN again: its file may come late, or be corrected. A PIN that the token has accepted stays, also
    /// when its file is taken away.
    fn refresh_pin(&mut self) {
        let can_change = self.pin.is_err() || matches!(self.source, Some(SecretSource::File(_)));
        if self.proven || !can_change {
            return;
        }
        match self.read_pin_in_time() {
            Some(read) if read.is_ok() || self.pin.is_err() => self.pin = read,
            None if self.pin.is_err() => self.pin = Err(self.hung()),
            _ => {}
        }
    }

    /// Reads the PIN on a thread, because a file system that hangs must not hold up other tokens. `None` if it takes long.
    fn read_pin_in_time(&mut self) -> Option<Result<Option<Locked>, String>> {
        if let Some(earlier) = &self.reading
            && matches!(earlier.try_recv(), Err(mpsc::TryRecvError::Empty))
        {
            return None;
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let source = self.source.clone();
        let reader = thread::Builder::new().name("pin".into());
        if let Err(error) = reader.spawn(move || sender.send(read_pin(source.as_ref()))) {
            return Some(Err(format!("cannot read the PIN: {error}")));
        }
        let read = receiver.recv_timeout(PATIENCE_FOR_PIN).ok();
        self.reading = read.is_none().then_some(receiver);
        read
    }

    fn hung(&self) -> String {
        let source = self.source.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("the PIN in {source} cannot be read: its file system does not answer")
    }

    fn begin_login(&mut self, token: &TokenBeforeLogin) -> Result<(), String> {
        let pin = self.pin.as_ref().map_err(Clone::clone)?.as_deref();
        self.proven &= self.doubts < DOUBTS_OF_A_PROVEN;
        // From now on the notes count them.
        let doubts = if self.proven { 0 } else { mem::take(&mut self.doubts) };
        let source = self.source.as_ref();
        let is_read_again = matches!(source, Some(SecretSource::File(_)));
        let source = source.map(ToString::to_string).unwrap_or_default();
        self.memory.begin(token, PinToSend { pin, source: &source, is_read_again, proven: self.proven, doubts })?;
        self.doubts += u32::from(self.proven);
        self.logging_in = true;
        Ok(())
    }

    fn end_login(&mut self, token: &TokenBeforeLogin, outcome: &LoginOutcome) {
        self.logging_in = false;
        if let Ok(Some(pin)) = &self.pin {
            let source = self.source.as_ref().map(ToString::to_string).unwrap_or_default();
            let pin =
                PinToSend { pin: Some(pin), source: &source, is_read_again: false, proven: self.proven, doubts: 0 };
            self.memory.end(token, pin, outcome);
        }
        match outcome {
            LoginOutcome::Accepted => (self.proven, self.doubts) = (true, 0),
            LoginOutcome::Refused(_) => (self.proven, self.doubts) = (false, 0),
            LoginOutcome::Trouble => self.doubts = self.doubts.saturating_sub(1),
            LoginOutcome::Unclear(_) => {}
        }
    }

    fn is_logging_in(&mut self) -> bool {
        self.logging_in && self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn start_child(&mut self) -> Result<UnixStream, String> {
        self.end_child();
        self.logging_in = false;
        self.refresh_pin();
        let pin = self.pin.as_ref().map_err(Clone::clone)?;
        let cannot = |error: io::Error| format!("cannot start a child process for {}: {error}", self.spec.token);
        let (mut ours, theirs) = UnixStream::pair().map_err(cannot)?;
        let mut command = own_program(CHILD_COMMAND, theirs);
        command.env_clear();
        command.envs(self.spec.variables(&self.secret).filter_map(|name| Some((name, env::var_os(name)?))));
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(cannot)?;
        // Read all the time: a module that logs into a full pipe would hang.
        self.words = child.stderr.take().map(LastWords::of).transpose().map_err(cannot)?;
        self.child = Some(child);
        write_json(&mut ours, &self.switches)
            .and_then(|()| write_json(&mut ours, &self.spec))
            .and_then(|()| write_frame(&mut ours, pin.as_deref().unwrap_or(&[])))
            .map_err(cannot)?;
        Ok(ours)
    }

    /// How the child ended, if it did, and what its module wrote last. Never the PIN.
    fn last_words(&mut self) -> Words {
        let complete = self.words.as_ref().is_none_or(LastWords::are_complete);
        let status = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        let mut text = match status {
            Some(status) if !status.success() => format!("; it {}", end_of(status)),
            _ => String::new(),
        };
        let pin = self.pin.as_ref().ok().and_then(Option::as_ref).map_or(&[][..], |pin| pin);
        if let Some(words) = self.words.as_ref().and_then(|words| words.shown_now(pin)) {
            text += &format!("; the module's last words: {words}");
        }
        Words { text, complete: complete && (self.child.is_none() || status.is_some()) }
    }

    /// Kills the child, but does not wait for it: a child that is stuck in the kernel must not hold up those of other
    /// tokens.
    fn end_child(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it has already ended.
            let _ = child.kill();
            self.ended.push(child);
        }
        self.ended.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

/// Reading a PIN again costs no attempt, because it is not used here.
fn read_pin(source: Option<&SecretSource>) -> Result<Option<Locked>, String> {
    match source.map(pin::read).transpose()? {
        None => Ok(None),
        Some(pin) => Locked::new(&pin).map(Some).ok_or_else(|| "the PIN is too long".to_owned()),
    }
}

impl Drop for TokenChild {
    fn drop(&mut self) {
        self.end_child();
    }
}
