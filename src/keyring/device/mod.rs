//! Keys in devices: one thread per device, a bounded queue, one deadline per request, recovery, and a breaker.
//!
//! The session of a device lives on the device's own thread, and no other thread waits for it: a caller waits for what
//! it [`Submitted`], never past its deadline. Every signature is verified against the pinned public key before it
//! leaves here. A device that keeps failing gets only self-tests until one succeeds, so a dead one costs its callers no
//! time.

pub mod failover;

use crate::{
    process::{backoff::Backoff, foreign::ForeignText, lock::lock},
    record::{histogram::Histogram, quiet::Rate},
};
use highwater_core::{
    consensus::{ChainId, PublicKey, Signature},
    signer::{SELF_TEST, SignError},
};
use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};
use tracing::{error, info, warn};

/// How long a request may take, with all its signatures: waiting, signing, a rebuilt session and a second try. Well
/// below the 5 s after which CometBFT gives up on its signer.
pub const DEADLINE: Duration = Duration::from_millis(1200);

/// How long a device that is down may take to open.
const PROBE_DEADLINE: Duration = Duration::from_secs(20);

/// How long its first signature may take then: some devices look for the key first.
const FIRST_SIGNATURE: Duration = Duration::from_secs(3);

/// How long a device may take for a chore, for which a request may have to wait.
const CHORE_DEADLINE: Duration = Duration::from_millis(300);

/// How many requests can wait for one device. More would miss their deadline anyway.
const QUEUE_REQUESTS: usize = 8;

/// How long a session may be idle before a self-test checks that it still works. Some devices drop a session after 30 s
/// of silence.
const IDLE_BEFORE_SELF_TEST: Duration = Duration::from_secs(15);

/// Waits between self-tests of a device that failed.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The longest wait for a device that answers, but with errors that pass: asking it costs no session.
const LONGEST_WAIT_FOR_ONE_THAT_ANSWERS: Duration = Duration::from_millis(400);

/// After this many failures in a row, a device gets only self-tests. One missed deadline is enough too.
const FAILURES_TO_TRIP: u32 = 3;

/// A connection to a device that is ready to sign.
pub trait Session: Send {
    /// Signs `message` with the device's key at index `key`. Returns soon after `deadline` at the latest.
    fn sign(&mut self, key: usize, message: &[u8], deadline: Instant) -> Result<Signature, Trouble>;

    /// How long the device has to be idle until it gets a chore. `None` if there is none.
    fn idle_before_chore(&self) -> Option<Duration> {
        None
    }

    /// Does something that no request needs, with one short command at most. Returns soon after `deadline` at the latest.
    fn chore(&mut self, _deadline: Instant) -> Result<(), Trouble> {
        Ok(())
    }
}

pub trait Opener: Send {
    /// Opens a session to replace the last one, which is not used again. Returns soon after `deadline` at the latest.
    fn open(&mut self, deadline: Instant) -> Result<Box<dyn Session>, Trouble>;

    /// A setting of the device that will sooner or later stop it from signing, known after the first `open`.
    fn flaw(&self) -> Option<&str> {
        None
    }
}

/// A configured device whose thread is not started yet.
pub struct DeviceSetup {
    /// Its name in the log and in errors.
    pub name: String,
    pub opener: Box<dyn Opener>,
    /// Its keys that sign. Never empty.
    pub keys: Vec<PublicKey>,
    /// The longest message that it can sign, in bytes.
    pub message_max_bytes: Option<usize>,
    /// The served chains whose consensus key is on it.
    pub chains: Vec<ChainId>,
}

/// Why a device did not carry out a request. The texts come from modules, connectors and devices, and can hold
/// anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Other requests used up the time. Not a fault of the device.
    Busy,
    /// The session or the device is in an unknown state: a new session may help.
    Broken(ForeignText),
    /// An operator has to act first. What opens the device looks at it again, but does nothing that can do harm before
    /// that: a wrong PIN locks a token.
    Fatal(ForeignText),
    /// It did not answer in time.
    Late,
    /// What leads to it did not accept a connection in time: how, and what to look at.
    Unreached(ForeignText),
    /// It is being logged in to, which takes long. It is waited for: a login that is cut off can cost an attempt at the
    /// PIN.
    LoggingIn(ForeignText),
    /// It rejected the request, and would reject it again.
    Rejected(ForeignText),
    /// It answered with an error that may pass. Its session is good.
    Temporary(ForeignText),
    /// It was reached and did not accept the password. Trying again does no harm here: the device counts no attempts.
    WrongPassword(ForeignText),
}

impl Trouble {
    /// The text that follows the name of the device.
    pub fn text(&self) -> &str {
        match self {
            Self::Broken(text)
            | Self::Fatal(text)
            | Self::LoggingIn(text)
            | Self::Rejected(text)
            | Self::Temporary(text)
            | Self::Unreached(text)
            | Self::WrongPassword(text) => text,
            Self::Busy => "too many requests wait for it",
            Self::Late => "it did not answer in time",
        }
    }

    /// Whether a second try may help at once: in a new session, or after an error that may have passed.
    fn may_pass_at_once(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Temporary(_) | Self::WrongPassword(_))
    }

    /// Whether the session gave a clear answer, so that it is good for the next request.
    fn keeps_session(&self) -> bool {
        matches!(self, Self::Rejected(_) | Self::Temporary(_))
    }
}

/// A device and its thread. The thread ends when this is dropped.
pub struct Device {
    name: String,
    chains: Vec<ChainId>,
    work: SyncSender<Work>,
    health: Arc<Mutex<Health>>,
    message_max_bytes: Option<usize>,
    stats: Arc<DeviceStats>,
}

/// The counters of a device.
#[derive(Debug, Default)]
pub struct DeviceStats {
    /// How long each signature took, without the wait in the queue.
    pub sign_time: Histogram,
    failures: AtomicU64,
    sessions: AtomicU64,
    waiting: AtomicU64,
}

impl DeviceStats {
    /// Requests that the device did not sign.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Sessions that were opened with the device.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Relaxed)
    }

    /// Requests that wait for the device or are in progress.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }
}

/// Whether a device signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does not, and why. It gets only self-tests.
    Down(String),
    Up,
}

/// Signatures that a device is making. Dropping this discards them.
pub struct Submitted {
    signatures: Receiver<Result<Vec<Signature>, SignError>>,
    deadline: Instant,
    device: String,
}

/// What a device's thread is asked to do.
enum Work {
    Sign(Job),
    /// End the session with the device and then itself, and say so.
    Close(SyncSender<()>),
}

struct Job {
    key: usize,
    messages: Vec<Vec<u8>>,
    deadline: Instant,
    reply: SyncSender<Result<Vec<Signature>, SignError>>,
}

impl Device {
    /// Starts the thread of a device, and waits for one deadline until the device signs. A device that is down is not
    /// an error: the thread keeps trying.
    pub fn start(setup: DeviceSetup) -> io::Result<Arc<Self>> {
        let DeviceSetup { name, opener, keys, message_max_bytes, chains } = setup;
        let stats: Arc<DeviceStats> = Arc::default();
        let (work, queue) = sync_channel(QUEUE_REQUESTS);
        let (first, came_up) = sync_channel(1);
        let health = Arc::new(Mutex::new(Health::Down("it has not been opened yet".into())));
        let worker = DeviceThread {
            name: name.clone(),
            opener,
            flaw_logged: false,
            session: None,
            keys,
            health: Arc::clone(&health),
            usual: Duration::ZERO,
            pulse: 0,
            failures: 0,
            waits: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            answers: false,
            log_rate: Rate::new(30, Duration::from_secs(1)),
            stats: Arc::clone(&stats),
        };
        thread::Builder::new().name("device".into()).spawn(move || worker.run(&queue, &first))?;
        // The answer does not matter here: `health` shows it.
        let _ = came_up.recv_timeout(DEADLINE);
        Ok(Arc::new(Self { name, chains, work, health, message_max_bytes, stats }))
    }

    /// The device's name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The served chains whose consensus key is on it.
    pub fn chains(&self) -> &[ChainId] {
        &self.chains
    }

    pub fn stats(&self) -> &DeviceStats {
        &self.stats
    }

    pub fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    /// Queues messages, all for one key and with one deadline, which counts from `asked_at`. Refuses at once what
    /// cannot succeed: the device is down, the queue is full, a message is too long for the device, or the deadline has
    /// passed.
    pub fn submit(&self, key: usize, messages: &[&[u8]], asked_at: Instant) -> Result<Submitted, SignError> {
        let refuse = |why: &str| SignError::Backend(format!("{}: {why}", self.name));
        if let Health::Down(why) = &*lock(&self.health) {
            return Err(refuse(why));
        }
        if let (Some(most), Some(longest)) = (self.message_max_bytes, messages.iter().map(|m| m.len()).max())
            && longest > most
        {
            return Err(refuse(&format!("it signs at most {most} bytes, but this message has {longest}")));
        }
        let deadline = asked_at + DEADLINE;
        if Instant::now() >= deadline {
            return Err(refuse("it was busy with earlier requests for too long"));
        }
        let (reply, signatures) = sync_channel(1);
        let messages = messages.iter().map(|message| message.to_vec()).collect();
        // Counted before it is sent: the device may finish it before this thread continues.
        self.stats.waiting.fetch_add(1, Relaxed);
        let sent = self.work.try_send(Work::Sign(Job { key, messages, deadline, reply }));
        sent.map_err(|error| {
            self.stats.waiting.fetch_sub(1, Relaxed);
            match error {
                TrySendError::Full(_) => refuse(Trouble::Busy.text()),
                TrySendError::Disconnected(_) => refuse("its thread has ended"),
            }
        })?;
        Ok(Submitted { signatures, deadline, device: self.name.clone() })
    }

    /// Has the thread end the session with the device, and itself. Returns what says so, or drops out. Waits for
    /// nothing.
    pub fn close(&self) -> Receiver<()> {
        let (reply, closed) = sync_channel(1);
        // A full queue means that the device hangs: then nobody can close anything.
        let _ = self.work.try_send(Work::Close(reply));
        closed
    }
}

impl Submitted {
    /// Waits for the signatures, in the order of their messages, until their deadline.
    pub fn wait(self) -> Result<Vec<Signature>, SignError> {
        /// The device's thread notices a missed deadline itself, and its error says more.
        const GRACE: Duration = Duration::from_millis(50);
        let left = self.deadline.saturating_duration_since(Instant::now()) + GRACE;
        match self.signatures.recv_timeout(left) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(SignError::Backend(format!("{}: {}", self.device, Trouble::Late.text())))
            }
        }
    }
}

/// The thread of a device.
struct DeviceThread {
    name: String,
    opener: Box<dyn Opener>,
    flaw_logged: bool,
    session: Option<Box<dyn Session>>,
    keys: Vec<PublicKey>,
    health: Arc<Mutex<Health>>,
    /// How long the last signature took, at most half a deadline. A request with less time left is not started: it
    /// would be late, and cost a good session.
    usual: Duration,
    /// The key of the last self-test of an idle device.
    pulse: usize,
    failures: u32,
    /// Waits between self-tests since the device went down.
    waits: Backoff,
    /// Whether the last trouble was an answer that may pass.
    answers: bool,
    /// Limits how often its troubles are logged: a node can cause any number of them.
    log_rate: Rate,
    stats: Arc<DeviceStats>,
}

impl DeviceThread {
    fn run(mut self, queue: &Receiver<Work>, first: &SyncSender<()>) {
        self.self_test();
        let _ = first.send(());
        // Chores do not put the self-test off.
        let mut self_test_at = Instant::now() + self.patience();
        loop {
            let chore = self.session.as_ref().and_then(|session| session.idle_before_chore());
            let patience = self_test_at.saturating_duration_since(Instant::now());
            let chore = chore.filter(|chore| *chore < patience);
            // A request that waits goes first.
            match queue.recv_timeout(chore.unwrap_or(patience)) {
                Ok(Work::Sign(job)) => self.serve(&job),
                Ok(Work::Close(reply)) => {
                    self.session = None;
                    // Whoever asked may have stopped waiting.
                    let _ = reply.try_send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) if chore.is_some() => {
                    self.chore();
                    // A device that it found to be down is looked at soon.
                    self_test_at = self_test_at.min(Instant::now() + self.patience());
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => self.self_test(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self_test_at = Instant::now() + self.patience();
        }
    }

    fn chore(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        let done = session.chore(Instant::now() + CHORE_DEADLINE);
        if let Err(trouble @ (Trouble::Late | Trouble::Unreached(_))) = &done {
            // A request would wait for it in the same way.
            self.note(Some(trouble));
        } else if let Err(trouble) = &done
            && let Some(times) = self.log_rate.tells(Instant::now())
        {
            warn!(device = %self.name, times, "{}", trouble.text());
        }
        // What uses the device next opens a new session otherwise. Whether it signs, a chore does not say.
        if done.as_ref().err().is_none_or(Trouble::keeps_session) {
            self.session = Some(session);
        }
    }

    /// How long to wait for work before a self-test: long for a device that signs, short for one that failed. Also
    /// where only an operator can help: what the operator does is found without a restart.
    fn patience(&mut self) -> Duration {
        if self.failures == 0 && *lock(&self.health) == Health::Up {
            return IDLE_BEFORE_SELF_TEST;
        }
        let wait = self.waits.next_wait_with_jitter();
        if self.answers { wait.min(LONGEST_WAIT_FOR_ONE_THAT_ANSWERS) } else { wait }
    }

    fn serve(&mut self, job: &Job) {
        let signed: Result<Vec<Signature>, Trouble> =
            job.messages.iter().map(|message| self.sign(job.key, message, job.deadline)).collect();
        self.note(signed.as_ref().err());
        self.stats.waiting.fetch_sub(1, Relaxed);
        self.stats.failures.fetch_add(u64::from(signed.is_err()), Relaxed);
        let reply = signed.map_err(|trouble| SignError::Backend(format!("{}: {}", self.name, trouble.text())));
        // The caller may have stopped waiting.
        let _ = job.reply.try_send(reply);
    }

    /// Signs. Tries once more if that may help: with a new session if the first try broke the old one.
    fn sign(&mut self, key: usize, message: &[u8], deadline: Instant) -> Result<Signature, Trouble> {
        match self.try_sign(key, message, deadline) {
            Err(broken) if broken.may_pass_at_once() => match self.try_sign(key, message, deadline) {
                // Two failures that used up all the time are as bad as one that did.
                Err(Trouble::Busy) if Instant::now() >= deadline => Err(Trouble::Late),
                Err(Trouble::Busy) => Err(broken),
                other => other,
            },
            other => other,
        }
    }

    fn try_sign(&mut self, key: usize, message: &[u8], deadline: Instant) -> Result<Signature, Trouble> {
        if Instant::now() + self.usual >= deadline {
            return Err(Trouble::Busy);
        }
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.open(deadline)?,
        };
        let began = Instant::now();
        let signature = session.sign(key, message, deadline);
        broken!("signature_unverified" => if signature.is_ok() { return signature });
        if let Ok(signature) = &signature {
            if !self.keys[key].verifies(message, signature) {
                return Err(Trouble::Broken("its signature does not verify with the pinned public key".into()));
            }
            let took = began.elapsed();
            self.stats.sign_time.observe(took);
            self.usual = took.min(DEADLINE / 2);
        }
        // The session is used again only after a clear answer: some modules hang in it otherwise.
        if signature.as_ref().err().is_none_or(Trouble::keeps_session) {
            self.session = Some(session);
        }
        signature
    }

    fn open(&mut self, deadline: Instant) -> Result<Box<dyn Session>, Trouble> {
        let session = self.opener.open(deadline)?;
        self.stats.sessions.fetch_add(1, Relaxed);
        if let (Some(flaw), false) = (self.opener.flaw(), self.flaw_logged) {
            error!(device = %self.name, "{flaw}");
            self.flaw_logged = true;
        }
        Ok(session)
    }

    /// Signs the self-test: with every key on a device that was down, and with one key at a time on an idle one, where
    /// a request may arrive at any moment.
    fn self_test(&mut self) {
        let count = self.keys.len();
        let was_open = self.session.is_some();
        if !was_open {
            // Opening a device may take long. No caller waits for it.
            match self.open(Instant::now() + PROBE_DEADLINE) {
                Ok(session) => self.session = Some(session),
                Err(trouble) => return self.note(Some(&trouble)),
            }
        }
        let keys = if was_open && count > 0 {
            self.pulse = (self.pulse + 1) % count;
            self.pulse..self.pulse + 1
        } else {
            0..count
        };
        let mut rejected = Vec::new();
        let tried = keys.len();
        for key in keys {
            let patience = if was_open { DEADLINE } else { FIRST_SIGNATURE };
            match self.sign(key, SELF_TEST, Instant::now() + patience) {
                Ok(_) => {}
                Err(trouble @ Trouble::Rejected(_)) => rejected.push(trouble),
                Err(trouble) => return self.note(Some(&trouble)),
            }
        }
        // A device with one bad key still signs with its others.
        match rejected.first() {
            Some(trouble) if rejected.len() == tried => self.note(Some(trouble)),
            _ => {
                for trouble in &rejected {
                    warn!(device = %self.name, "{}", trouble.text());
                }
                self.note(None);
            }
        }
    }

    /// Updates the breaker: a success closes it, repeated failures open it.
    fn note(&mut self, trouble: Option<&Trouble>) {
        let Some(trouble) = trouble else {
            self.failures = 0;
            self.waits.reset();
            let was = std::mem::replace(&mut *lock(&self.health), Health::Up);
            if was != Health::Up {
                info!(device = %self.name, "device up");
            }
            return;
        };
        self.answers = matches!(trouble, Trouble::Temporary(_));
        let was_up = *lock(&self.health) == Health::Up;
        let trips = match trouble {
            Trouble::Busy => false,
            Trouble::Broken(_) | Trouble::Temporary(_) | Trouble::WrongPassword(_) => {
                self.failures += 1;
                !was_up || self.failures >= FAILURES_TO_TRIP
            }
            // One costs its caller the whole deadline.
            Trouble::Fatal(_) | Trouble::Late | Trouble::Unreached(_) => true,
            Trouble::LoggingIn(_) => {
                // What opens the device waits for the login itself.
                self.waits.reset();
                true
            }
            // The key or the message is at fault, not the device.
            Trouble::Rejected(_) => !was_up,
        };
        if !trips {
            if let Some(times) = self.log_rate.tells(Instant::now()) {
                warn!(device = %self.name, times, "{}", trouble.text());
            }
            return;
        }
        let down = Health::Down(trouble.text().to_owned());
        let was = std::mem::replace(&mut *lock(&self.health), down.clone());
        if was != down {
            error!(device = %self.name, "device down: {}", trouble.text());
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
