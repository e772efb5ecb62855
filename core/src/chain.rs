//! A chain: one consensus key joined to one watermark, and the only place where a request becomes a signature.
//!
//! Types fix the order. [`decide`] gives a verdict, only the store turns it into a [`Durable`] mark, and `release`
//! consumes that mark before a signature leaves or is remembered. One lock per chain spans all of this, so one request
//! is in progress at a time, and a repeat waits for the flush that it relies on. Chains share nothing.

use crate::{
    consensus::{ChainId, Hrs, PublicKey, Signature, Timestamp},
    privval::{
        Canonical, Extension, ProposalRequest, RawBytesRequest, Refusal, SignBytes, VoteRequest, extension_sign_bytes,
        raw_sign_bytes,
    },
    signer::{Pending, SignError, Signer},
    watermark::{Candidate, Durable, Mark, Store, StoreError, Verdict, Violation, decide},
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// One chain and its key.
pub struct Chain {
    id: ChainId,
    public_key: Option<PublicKey>,
    allow_raw_bytes: bool,
    state: Mutex<State>,
    /// Whether its disk failed in a way that may go away. Read without the lock, so that no reader waits for a disk.
    disk_failed: Arc<AtomicBool>,
}

/// Whether the chain can sign.
enum State {
    Closed(Refusal),
    Open(Box<Open>),
    /// Holds its state file, but does not sign yet.
    Waiting {
        why: Refusal,
        open: Box<Open>,
    },
}

struct Open {
    signer: Box<dyn Signer>,
    store: Store,
    state_file: PathBuf,
    /// The signature at the current mark: a second node asks for the same vote, and a device is slow.
    cached: Option<Signature>,
    /// Shared with its chain.
    disk_failed: Arc<AtomicBool>,
}

/// Why a waiting chain cannot sign.
#[derive(Debug)]
pub enum NotReady {
    /// It may become ready: ask again later.
    Yet(Refusal),
    /// It cannot become ready before a restart.
    Ever {
        /// The answer to its requests until then.
        why: Refusal,
        /// Whether the disk failed in a way that may go away.
        passes: bool,
    },
}

/// A signed message that may leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The time that the signature covers. For a repeated vote, this is the time that was signed first.
    pub timestamp: Timestamp,
    /// The signature over the message.
    pub signature: Signature,
    /// Whether the message was signed before.
    pub repeated: bool,
    /// The signature over the vote extension, if the request needs one.
    pub extension_signature: Option<Signature>,
    /// How long its mark took to become durable. `None` for a repeat.
    pub flush_time: Option<Duration>,
    /// The sequence of its mark.
    pub sequence: u64,
}

impl Chain {
    /// Makes a chain that can sign. Does not move the mark or sign anything.
    pub fn open(id: ChainId, signer: Box<dyn Signer>, store: Store, state_file: &Path, allow_raw_bytes: bool) -> Self {
        let public_key = Some(signer.public_key());
        let disk_failed = Arc::default();
        let open =
            Open { signer, store, state_file: state_file.into(), cached: None, disk_failed: Arc::clone(&disk_failed) };
        Self { id, public_key, allow_raw_bytes, state: Mutex::new(State::Open(Box::new(open))), disk_failed }
    }

    /// Makes the chain answer every request with `why` until [`Chain::try_to_open`] opens it.
    #[must_use]
    pub fn waiting(mut self, why: Refusal) -> Self {
        let state = self.state.get_mut().expect("there is no other reference to the chain");
        *state = match std::mem::replace(state, State::Closed(why.clone())) {
            State::Open(open) | State::Waiting { open, .. } => State::Waiting { why, open },
            State::Closed(why) => State::Closed(why),
        };
        self
    }

    /// Opens a waiting chain if `ready` succeeds, which may raise the mark. Does nothing to any other chain.
    pub fn try_to_open(&self, ready: impl FnOnce(&mut Store) -> Result<(), NotReady>) -> Result<(), NotReady> {
        let mut state = self.lock();
        let State::Waiting { why, open } = &mut *state else { return Ok(()) };
        if let Err(error) = ready(&mut open.store) {
            let (NotReady::Yet(reason) | NotReady::Ever { why: reason, .. }) = &error;
            *why = reason.clone();
            if let NotReady::Ever { passes: true, .. } = error {
                self.disk_failed.store(true, Relaxed);
            }
            return Err(error);
        }
        let nothing = State::Closed(Refusal::NotYet(String::new()));
        if let State::Waiting { open, .. } = std::mem::replace(&mut *state, nothing) {
            *state = State::Open(open);
        }
        Ok(())
    }

    /// Makes a chain that answers every request with `why`. It still gives its public key if that is known: a starting
    /// node asks for the key once, and exits without it.
    pub fn closed(id: ChainId, public_key: Option<PublicKey>, why: Refusal) -> Self {
        let state = Mutex::new(State::Closed(why));
        Self { id, public_key, allow_raw_bytes: false, state, disk_failed: Arc::default() }
    }

    /// The id of the chain.
    pub fn id(&self) -> &ChainId {
        &self.id
    }

    /// Whether its disk failed in a way that may go away. Needs no lock.
    pub fn disk_failed(&self) -> bool {
        self.disk_failed.load(Relaxed)
    }

    /// The consensus key, or why it is not known. If it is known, this needs no device, no disk and no lock.
    pub fn public_key(&self) -> Result<PublicKey, Refusal> {
        match &self.public_key {
            Some(key) => Ok(key.clone()),
            None => Err(match &*self.lock() {
                State::Closed(why) | State::Waiting { why, .. } => why.clone(),
                State::Open(open) => Refusal::KeyUnavailable(format!("{} has no key", open.state_file.display())),
            }),
        }
    }

    /// Locks the secrets of its key into memory, to keep them out of swap and core dumps. Returns false if one of them
    /// could not be locked.
    pub fn lock_secrets(&self) -> bool {
        match &*self.lock() {
            State::Closed(_) => true,
            State::Open(open) | State::Waiting { open, .. } => open.signer.lock_secrets(),
        }
    }

    /// The last mark of an open or waiting chain.
    pub fn mark(&self) -> Option<Hrs> {
        match &*self.lock() {
            State::Closed(_) => None,
            State::Open(open) | State::Waiting { open, .. } => Some(open.store.mark().hrs),
        }
    }

    /// The last mark of an open chain, or why the chain does not sign.
    pub fn last(&self) -> Result<Hrs, Refusal> {
        match &*self.lock() {
            State::Closed(why) | State::Waiting { why, .. } => Err(why.clone()),
            State::Open(open) => Ok(open.store.mark().hrs),
        }
    }

    /// The sequence of the last mark, or why the chain has none.
    pub fn sequence(&self) -> Result<u64, Refusal> {
        match &*self.lock() {
            State::Closed(why) => Err(why.clone()),
            State::Open(open) | State::Waiting { open, .. } => Ok(open.store.sequence()),
        }
    }

    /// Signs a vote, and its extension if it has one. Returns both signatures or a refusal.
    pub fn sign_vote(&self, request: &VoteRequest) -> Result<Signed, Refusal> {
        let Canonical { height, round, .. } = request.canonical;
        let extension = match &request.extension {
            Extension::None => None,
            Extension::Sign(extension) => Some(extension_sign_bytes(&self.id, height, round, extension)),
        };
        self.with_open(|id, open, asked_at| open.sign(id, &request.canonical, extension.as_deref(), asked_at))
    }

    /// Signs a proposal.
    pub fn sign_proposal(&self, request: &ProposalRequest) -> Result<Signed, Refusal> {
        self.with_open(|id, open, asked_at| open.sign(id, &request.canonical, None, asked_at))
    }

    /// Signs Celestia raw bytes, if the chain's configuration allows it. They carry a prefix that keeps them apart
    /// from everything the watermark guards, so no mark moves.
    pub fn sign_raw_bytes(&self, request: &RawBytesRequest) -> Result<Signature, Refusal> {
        if !self.allow_raw_bytes {
            return Err(Refusal::NotPermitted("raw bytes are signed only with `allow_raw_bytes = true` for the chain"));
        }
        self.with_open(|id, open, asked_at| {
            let sign_bytes = raw_sign_bytes(id, &request.raw_bytes, &request.unique_id);
            let pending = open.begin(Some(sign_bytes.as_slice()), None, asked_at)?;
            let (signature, _) = open.finish(pending, Some(sign_bytes.as_slice()), None)?;
            Ok(signature.expect("one message was to be signed"))
        })
    }

    /// Runs `act` under the lock, with the time at which the request arrived: waiting for another node's request counts
    /// against its deadline.
    fn with_open<T>(&self, act: impl FnOnce(&ChainId, &mut Open, Instant) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let asked_at = Instant::now();
        match &mut *self.lock() {
            State::Closed(why) | State::Waiting { why, .. } => Err(why.clone()),
            State::Open(open) => act(&self.id, open, asked_at),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a panic while the lock is held ends the process")
    }
}

impl Open {
    /// The only way to a signature. A device starts before the mark is flushed and works meanwhile; the release waits
    /// for both. If the device refuses at once, the mark does not move.
    fn sign(
        &mut self,
        id: &ChainId,
        asked: &Canonical,
        extension: Option<&[u8]>,
        asked_at: Instant,
    ) -> Result<Signed, Refusal> {
        let candidate = Candidate {
            hrs: asked.hrs(),
            target: asked.target(),
            timestamp: asked.timestamp,
            digest: asked.digest(id),
        };
        let (timestamp, repeated) = match decide(self.store.mark(), &candidate) {
            Verdict::Refuse(violation) => return Err(refusal(violation, candidate.hrs, self.store.mark())),
            Verdict::Repeat { timestamp } => (timestamp, true),
            Verdict::Sign => (asked.timestamp, false),
        };
        let sign_bytes = Canonical { timestamp, ..*asked }.sign_bytes(id);
        // The signature of a repeated message may be cached. An extension is always signed anew: an application may extend
        // the same vote differently the second time.
        let cached = if repeated { self.cached.clone() } else { None };
        let message = if cached.is_none() { Some(sign_bytes.as_slice()) } else { None };
        let pending = self.begin(message, extension, asked_at)?;

        let flush_begin = Instant::now();
        let (durable, flush_time) = if repeated {
            (self.store.current(), None)
        } else {
            self.forget_signature();
            let durable = self.store.advance(candidate.mark());
            (durable, Some(flush_begin.elapsed()))
        };
        let durable = durable.map_err(|error| self.state_failed(&error))?;

        let (made, extension_signature) = self.finish(pending, message, extension)?;
        let signature = cached.or(made).expect("the message was signed now or before");
        let signature = release(durable, id, &sign_bytes, signature);
        self.cached = Some(signature.clone());
        Ok(Signed { timestamp, signature, repeated, extension_signature, flush_time, sequence: self.store.sequence() })
    }

    /// The cached signature is valid for its own mark only.
    fn forget_signature(&mut self) {
        broken!("cache_of_another_mark" => return);
        self.cached = None;
    }

    /// Starts signing the message, unless its signature is cached, and the extension, if there is one.
    fn begin(
        &self,
        message: Option<&[u8]>,
        extension: Option<&[u8]>,
        asked_at: Instant,
    ) -> Result<Option<Box<dyn Pending>>, Refusal> {
        let begun = match (message, extension) {
            (None, None) => Ok(None),
            (Some(message), None) => self.signer.begin(&[message], asked_at),
            (None, Some(extension)) => self.signer.begin(&[extension], asked_at),
            (Some(message), Some(extension)) => self.signer.begin(&[message, extension], asked_at),
        };
        begun.map_err(key_unavailable)
    }

    /// Waits for the signatures that were started, or makes them now if the key signs without a start. Returns the
    /// signatures of the message and of the extension.
    fn finish(
        &self,
        pending: Option<Box<dyn Pending>>,
        message: Option<&[u8]>,
        extension: Option<&[u8]>,
    ) -> Result<(Option<Signature>, Option<Signature>), Refusal> {
        let Some(pending) = pending else {
            return Ok((self.sign_now(message)?, self.sign_now(extension)?));
        };
        // In the order in which `begin` passed the messages.
        let mut made = pending.wait().map_err(key_unavailable)?.into_iter();
        let mut next = || made.next().ok_or_else(|| key_unavailable(SignError::too_few()));
        let of_message = if message.is_some() { Some(next()?) } else { None };
        let of_extension = if extension.is_some() { Some(next()?) } else { None };
        Ok((of_message, of_extension))
    }

    fn sign_now(&self, message: Option<&[u8]>) -> Result<Option<Signature>, Refusal> {
        message.map(|message| self.signer.sign(message)).transpose().map_err(key_unavailable)
    }

    fn state_failed(&self, error: &StoreError) -> Refusal {
        if error.may_pass() {
            self.disk_failed.store(true, Relaxed);
        }
        state_unusable(&self.state_file, error)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn key_unavailable(error: SignError) -> Refusal {
    Refusal::KeyUnavailable(error.to_string())
}

/// Releases a signature, in exchange for the proof that the mark covering it is on the disk.
///
/// # Panics
/// If the signed bytes are not the message of the mark. Then nothing in this program can be trusted.
fn release(mark: Durable<Mark>, id: &ChainId, sign_bytes: &SignBytes, signature: Signature) -> Signature {
    broken!("release_unchecked" => return signature);
    let (message, chain) = Canonical::parse(sign_bytes.as_slice()).expect("sign bytes read back");
    let Mark { hrs, signed } = mark.spend();
    let signed = signed.expect("the mark of a message knows the message");
    assert!(
        chain == *id
            && message.hrs() == hrs
            && message.timestamp == signed.timestamp
            && message.digest(id) == signed.digest,
        "the durable mark at {hrs} does not cover the bytes that were signed"
    );
    signature
}

fn refusal(violation: Violation, asked: Hrs, last: &Mark) -> Refusal {
    match violation {
        Violation::DoubleSign(conflict) => Refusal::DoubleSign { hrs: asked, conflict },
        Violation::Regression => Refusal::Regression { asked, last: last.hrs },
    }
}

/// The refusal for an error of the state file at `path`.
pub fn state_unusable(path: &Path, error: &StoreError) -> Refusal {
    Refusal::StateUnusable(format!("state file {} {error}", path.display()))
}

#[cfg(test)]
#[path = "chain_tests.rs"]
pub(crate) mod tests;
