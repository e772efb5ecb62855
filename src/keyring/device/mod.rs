//! Keys in devices: one thread per device, a bounded queue, one deadline per request, recovery, and a breaker.
//!
//! Whatever the kind of device, its session lives on the device's own thread and nobody else waits for it: a caller
//! waits for what is [`Submitted`], never past its deadline. Every signature is verified against the pinned public key
//! before it leaves here. A device that keeps failing is asked nothing but self-tests until one succeeds, so a dead
//! one costs its callers no time.

pub mod failover;

use crate::{
    process::{backoff::Backoff, lock::lock},
    record::{foreign::ForeignText, histogram::Histogram, quiet::Rate},
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

/// How long a device that is down may take to come up.
const PROBE_DEADLINE: Duration = Duration::from_secs(20);

/// Requests that wait for one device. More would pass their deadline anyway.
const QUEUE_REQUESTS: usize = 8;

/// How long an idle session is trusted before a self-test looks whether it still lives; some devices drop one that
/// is silent for 30 s.
const IDLE_BEFORE_SELF_TEST: Duration = Duration::from_secs(15);

/// Waits between self-tests of a device that failed.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Failures in a row after which a device is asked nothing but self-tests. One missed deadline is enough.
const FAILURES_TO_TRIP: u32 = 3;

/// A connection to a device that is ready to sign.
pub trait Session: Send {
    /// Signs `message` with the device's key of that index. Returns soon after `deadline` at the latest.
    fn sign(&mut self, key: usize, message: &[u8], deadline: Instant) -> Result<Signature, Trouble>;
}

/// Makes sessions.
pub trait Opener: Send {
    /// Opens a session in place of the last one, which is gone for good. Returns soon after `deadline` at the latest.
    fn open(&mut self, deadline: Instant) -> Result<Box<dyn Session>, Trouble>;

    /// What about the device, opened once, will stop it from signing sooner or later, in words that follow its name.
    fn flaw(&self) -> Option<&str> {
        None
    }
}

/// A device of the configuration that has no thread yet.
pub struct DeviceSetup {
    /// What the log and errors call it.
    pub name: String,
    /// Makes its sessions.
    pub opener: Box<dyn Opener>,
    /// The keys on it that sign. Never empty.
    pub keys: Vec<PublicKey>,
    /// The longest message that it signs, in bytes.
    pub message_max_bytes: Option<usize>,
    /// The served chains whose consensus key is on it.
    pub chains: Vec<ChainId>,
}

/// Why a device did not do what it was asked. What it says comes from modules, connectors and devices, which can say
/// anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Others were served until there was no time left. Says nothing about the device.
    Busy,
    /// The session or the device is in an unknown state: a new session may help.
    Broken(ForeignText),
    /// Nothing helps before an operator acts, and trying again may do harm: a wrong PIN locks a token.
    Fatal(ForeignText),
    /// It did not answer in time.
    Late,
    /// It gave a clear answer, and would give it again.
    Rejected(ForeignText),
    /// It was reached and did not accept the password. Trying again does no harm here: the device counts no attempts.
    WrongPassword(ForeignText),
}

impl Trouble {
    /// In words that follow the name of the device.
    pub fn text(&self) -> &str {
        match self {
            Self::Broken(text) | Self::Fatal(text) | Self::Rejected(text) | Self::WrongPassword(text) => text,
            Self::Busy => "too many requests wait for it",
            Self::Late => "it did not answer in time",
        }
    }

    /// Whether a new session may help at once.
    fn is_of_the_session(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::WrongPassword(_))
    }
}

/// A device and its thread. The thread ends when this goes.
pub struct Device {
    name: String,
    chains: Vec<ChainId>,
    jobs: SyncSender<Job>,
    health: Arc<Mutex<Health>>,
    message_max_bytes: Option<usize>,
    stats: Arc<DeviceStats>,
}

/// What a device has done.
#[derive(Debug, Default)]
pub struct DeviceStats {
    /// The time of each signature that the device made, without the wait in its queue.
    pub sign_time: Histogram,
    /// Requests that it did not sign.
    failures: AtomicU64,
    /// Sessions that were opened.
    sessions: AtomicU64,
    /// Requests that are in its queue or in work.
    waiting: AtomicU64,
}

impl DeviceStats {
    /// Requests that it did not sign.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Sessions that were opened.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Relaxed)
    }

    /// Requests that are in its queue or in work.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }
}

/// What is known about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Down, and why. Only self-tests are sent to it.
    Down(String),
    /// It signs.
    Up,
}

/// Signatures that one device is making. Dropping it discards them.
pub struct Submitted {
    signatures: Receiver<Result<Vec<Signature>, SignError>>,
    deadline: Instant,
    device: String,
}

struct Job {
    key: usize,
    messages: Vec<Vec<u8>>,
    deadline: Instant,
    reply: SyncSender<Result<Vec<Signature>, SignError>>,
}

impl Device {
    /// Starts the thread of a device, and gives it one deadline to come up. A device that is down is
    /// no error: it is looked for until it comes.
    pub fn start(setup: DeviceSetup) -> io::Result<Arc<Self>> {
        let DeviceSetup { name, opener, keys, message_max_bytes, chains } = setup;
        let stats: Arc<DeviceStats> = Arc::default();
        let (jobs, queue) = sync_channel(QUEUE_REQUESTS);
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
            fatal: false,
            log_rate: Rate::new(30, Duration::from_secs(1)),
            stats: Arc::clone(&stats),
        };
        thread::Builder::new().name("device".into()).spawn(move || worker.run(&queue, &first))?;
        // Its answer does not matter here: the health says how the device is.
        let _ = came_up.recv_timeout(DEADLINE);
        Ok(Arc::new(Self { name, chains, jobs, health, message_max_bytes, stats }))
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The served chains whose consensus key is on it.
    pub fn chains(&self) -> &[ChainId] {
        &self.chains
    }

    /// What it has done.
    pub fn stats(&self) -> &DeviceStats {
        &self.stats
    }

    /// How the device is.
    pub fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    /// Puts messages into the queue, all for one key and under one deadline, which counts from `asked_at`. Refuses at
    /// once what cannot succeed: a device that is down, a full queue, a message that the device does not take, a
    /// deadline that is over.
    pub fn submit(&self, key: usize, messages: &[&[u8]], asked_at: Instant) -> Result<Submitted, SignError> {
        let refuse = |why: &str| SignError::Backend(format!("{}: {why}", self.name));
        if let Health::Down(why) = &*lock(&self.health) {
            return Err(refuse(why));
        }
        if let (Some(most), Some(longest)) = (self.message_max_bytes, messages.iter().map(|m| m.len()).max())
            && longest > most
        {
            return Err(refuse(&format!("it signs at most {most} bytes, this message has {longest}")));
        }
        let deadline = asked_at + DEADLINE;
        if Instant::now() >= deadline {
            return Err(refuse("it was busy with earlier requests for too long"));
        }
        let (reply, signatures) = sync_channel(1);
        let messages = messages.iter().map(|message| message.to_vec()).collect();
        // Counted before it is sent: the device may be done with it before this thread goes on.
        self.stats.waiting.fetch_add(1, Relaxed);
        let sent = self.jobs.try_send(Job { key, messages, deadline, reply });
        sent.map_err(|error| {
            self.stats.waiting.fetch_sub(1, Relaxed);
            match error {
                TrySendError::Full(_) => refuse(Trouble::Busy.text()),
                TrySendError::Disconnected(_) => refuse("its thread has ended"),
            }
        })?;
        Ok(Submitted { signatures, deadline, device: self.name.clone() })
    }
}

impl Submitted {
    /// Waits for the signatures, in the order of their messages, no longer than their deadline.
    pub fn wait(self) -> Result<Vec<Signature>, SignError> {
        /// The device's thread notices a missed deadline itself, and knows more about it.
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
    /// How long the last signature took, at most half a deadline. What has less time left is not begun: it would be
    /// late, and cost a session that is well.
    usual: Duration,
    /// The key whose self-test was the last pulse.
    pulse: usize,
    failures: u32,
    /// Waits between self-tests since the device went down.
    waits: Backoff,
    fatal: bool,
    /// How often its troubles are told: a node can ask as often as it likes.
    log_rate: Rate,
    stats: Arc<DeviceStats>,
}

impl DeviceThread {
    fn run(mut self, queue: &Receiver<Job>, first: &SyncSender<()>) {
        self.self_test();
        let _ = first.send(());
        loop {
            match queue.recv_timeout(self.patience()) {
                Ok(job) => self.serve(&job),
                Err(RecvTimeoutError::Timeout) => self.self_test(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// How long to wait for work before a self-test: long for a device that signs, short for one that failed, for ever
    /// where only an operator can help.
    fn patience(&mut self) -> Duration {
        if self.fatal {
            return Duration::MAX;
        }
        if self.failures == 0 && *lock(&self.health) == Health::Up {
            return IDLE_BEFORE_SELF_TEST;
        }
        self.waits.next_wait_with_jitter()
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

    /// Signs, and once more with a new session if the first try broke the old one.
    fn sign(&mut self, key: usize, message: &[u8], deadline: Instant) -> Result<Signature, Trouble> {
        match self.try_sign(key, message, deadline) {
            Err(broken) if broken.is_of_the_session() => match self.try_sign(key, message, deadline) {
                Err(Trouble::Busy) => Err(broken),
                other => other,
            },
            other => other,
        }
    }

    fn try_sign(&mut self, key: usize, message: &[u8], deadline: Instant) -> Result<Signature, Trouble> {
        if self.fatal {
            return Err(Trouble::Fatal(self.reason().into()));
        }
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
        // After anything but a clear answer the session is not used again: some modules stay stuck in it.
        if matches!(signature, Ok(_) | Err(Trouble::Rejected(_))) {
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

    /// Signs the self-test: with every key as the probe of a device that comes up, with one key at a time as the pulse
    /// of an idle one, where a request may come in at any moment.
    fn self_test(&mut self) {
        if self.fatal {
            return;
        }
        let count = self.keys.len();
        let keys = match self.session {
            Some(_) if count > 0 => {
                self.pulse = (self.pulse + 1) % count;
                self.pulse..self.pulse + 1
            }
            _ => 0..count,
        };
        let mut rejected = Vec::new();
        let tried = keys.len();
        for key in keys {
            // A device that is being opened may take its time; nobody waits for this.
            let patience = if self.session.is_some() { DEADLINE } else { PROBE_DEADLINE };
            match self.sign(key, SELF_TEST, Instant::now() + patience) {
                Ok(_) => {}
                Err(trouble @ Trouble::Rejected(_)) => rejected.push(trouble),
                Err(trouble) => return self.note(Some(&trouble)),
            }
        }
        // A device with one bad key is good for the others.
        match rejected.first() {
            Some(trouble) if rejected.len() == tried => self.note(Some(trouble)),
            _ => {
                rejected.iter().for_each(|trouble| warn!(device = %self.name, "{}", trouble.text()));
                self.note(None);
            }
        }
    }

    /// Keeps the breaker: closed by a success, opened by repeated failure.
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
        let was_up = *lock(&self.health) == Health::Up;
        let trips = match trouble {
            Trouble::Busy => false,
            Trouble::Broken(_) | Trouble::WrongPassword(_) => {
                self.failures += 1;
                !was_up || self.failures >= FAILURES_TO_TRIP
            }
            Trouble::Fatal(_) | Trouble::Late => true,
            // The key or message is wrong, not the device.
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
        if matches!(trouble, Trouble::Fatal(_)) {
            self.fatal = true;
            error!(device = %self.name, "not tried again before a restart");
        }
    }

    fn reason(&self) -> String {
        match &*lock(&self.health) {
            Health::Down(why) => why.clone(),
            Health::Up => "it is closed".into(),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
