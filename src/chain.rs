//! A chain: one consensus key joined to one watermark, and the only place where a request becomes a signature.
//!
//! The order is fixed by types. [`decide`] gives a verdict, only the store turns it into a [`Durable`] mark, and
//! `release` consumes that mark before a signature leaves or is remembered. One lock per chain spans all of it,
//! so one request is in flight and a repeat waits for the flush it relies on. Chains share nothing.

use crate::{
    consensus::{ChainId, Hrs, PublicKey, Signature, Timestamp},
    keyring::{SignError, Signer, Ticket},
    passing,
    privval::{
        Canonical, Extension, ProposalRequest, RawBytesRequest, Refusal, SignBytes, VoteRequest, extension_sign_bytes,
        raw_sign_bytes,
    },
    record::stats::ChainStats,
    watermark::{Candidate, Durable, Mark, Store, StoreError, Verdict, Violation, decide},
};
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// What every self-test signs: one constant that can never be sign bytes. As a length prefix its first byte
/// announces 72 bytes, and the second is no field of a canonical message. As long as a vote, because the time that a
/// device takes grows with the message.
pub const SELF_TEST: &[u8] =
    b"Highwater self-test: this is no vote, no proposal and no vote extension, and as long as a vote, so that it takes as long.";

/// One chain and its key.
pub struct Chain {
    id: ChainId,
    public_key: Option<PublicKey>,
    allow_raw_bytes: bool,
    plane: Mutex<Plane>,
    stats: ChainStats,
}

/// Whether the chain can sign.
enum Plane {
    Closed(Refusal),
    Open(Box<Open>),
    /// Holds its state, and does not sign yet.
    Waiting {
        why: Refusal,
        open: Box<Open>,
    },
}

struct Open {
    signer: Box<dyn Signer>,
    store: Store,
    state_file: PathBuf,
    /// The signature at the current mark: a second node asks for the same vote, and a device takes its time.
    cached: Option<Signature>,
    /// Whether the disk has failed in a way that may pass.
    disk_failed: bool,
}

/// Why a chain that waits cannot sign.
#[derive(Debug)]
pub enum NotReady {
    /// What it waits for may still come.
    Yet(Refusal),
    /// Not before a restart.
    Ever {
        /// Why.
        why: Refusal,
        /// Whether the disk failed in a way that may pass.
        passes: bool,
    },
}

/// A message that may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The time that the signature covers; for a repeated vote not the one asked for.
    pub timestamp: Timestamp,
    /// The signature.
    pub signature: Signature,
    /// Whether it had been signed before.
    pub repeated: bool,
    /// The signature over the vote extension, if there had to be one.
    pub extension_signature: Option<Signature>,
    /// How long its mark took to become durable. None for a repeat.
    pub flushed_in: Option<Duration>,
    /// The number of its mark.
    pub sequence: u64,
}

impl Chain {
    /// A chain that can sign. Raises no mark and signs nothing by itself.
    pub fn open(id: ChainId, signer: Box<dyn Signer>, store: Store, state_file: &Path, allow_raw_bytes: bool) -> Self {
        let public_key = Some(signer.public_key());
        let stats = ChainStats::default();
        stats.mark(store.mark().hrs);
        let open = Open { signer, store, state_file: state_file.into(), cached: None, disk_failed: false };
        Self { id, public_key, allow_raw_bytes, plane: Mutex::new(Plane::Open(Box::new(open))), stats }
    }

    /// The same chain, which answers every request with `why` until [`Chain::try_to_open`] opens it.
    #[must_use]
    pub fn waiting(mut self, why: Refusal) -> Self {
        let plane = self.plane.get_mut().expect("nobody else has it");
        let Plane::Open(open) = std::mem::replace(plane, Plane::Closed(why.clone())) else { return self };
        self.stats.wait(&why);
        *plane = Plane::Waiting { why, open };
        self
    }

    /// Opens a chain that waits, if `ready` finds that it may sign; that may raise its mark.
    pub fn try_to_open(&self, ready: impl FnOnce(&mut Store) -> Result<(), NotReady>) -> Result<(), NotReady> {
        let mut plane = self.plane();
        let Plane::Waiting { why, open } = &mut *plane else { return Ok(()) };
        match ready(&mut open.store) {
            Ok(()) => {
                self.stats.mark(open.store.mark().hrs);
                let nothing = Plane::Closed(Refusal::NotYet(String::new()));
                if let Plane::Waiting { open, .. } = std::mem::replace(&mut *plane, nothing) {
                    *plane = Plane::Open(open);
                }
                self.stats.open();
                Ok(())
            }
            Err(error) => {
                let (NotReady::Yet(reason) | NotReady::Ever { why: reason, .. }) = &error;
                *why = reason.clone();
                self.stats.wait(reason);
                if let NotReady::Ever { passes: true, .. } = error {
                    self.stats.disk_failed();
                }
                Err(error)
            }
        }
    }

    /// A chain that answers every request with `why`, but for its public key if that is known: a booting node asks
    /// for it once and exits without.
    pub fn closed(id: ChainId, public_key: Option<PublicKey>, why: Refusal) -> Self {
        let stats = ChainStats::default();
        stats.close(&why);
        Self { id, public_key, allow_raw_bytes: false, plane: Mutex::new(Plane::Closed(why)), stats }
    }

    /// The chain's id.
    pub fn id(&self) -> &ChainId {
        &self.id
    }

    /// How far it has come. Needs no lock of the signing path.
    pub fn stats(&self) -> &ChainStats {
        &self.stats
    }

    /// The consensus key. Needs no device, no disk and no lock.
    pub fn public_key(&self) -> Result<PublicKey, Refusal> {
        match self.public_key {
            Some(key) => Ok(key),
            None => Err(match &*self.plane() {
                Plane::Closed(why) | Plane::Waiting { why, .. } => why.clone(),
                Plane::Open(open) => Refusal::KeyUnavailable(format!("{} has no key", open.state_file.display())),
            }),
        }
    }

    /// Keeps the secrets of its key out of swap and core dumps. Whether they all are.
    pub fn lock_secrets(&self) -> bool {
        match &*self.plane() {
            Plane::Closed(_) => true,
            Plane::Open(open) | Plane::Waiting { open, .. } => open.signer.lock_secrets(),
        }
    }

    /// The last mark, or why there is none.
    pub fn last(&self) -> Result<Hrs, Refusal> {
        match &*self.plane() {
            Plane::Closed(why) | Plane::Waiting { why, .. } => Err(why.clone()),
            Plane::Open(open) => Ok(open.store.mark().hrs),
        }
    }

    /// The number of the last mark, or why there is none.
    pub fn sequence(&self) -> Result<u64, Refusal> {
        match &*self.plane() {
            Plane::Closed(why) => Err(why.clone()),
            Plane::Open(open) | Plane::Waiting { open, .. } => Ok(open.store.sequence()),
        }
    }

    /// Signs a vote, and its extension if it has one. The answer is whole or a refusal.
    pub fn sign_vote(&self, request: &VoteRequest, max_height: Option<u64>) -> Result<Signed, Refusal> {
        let Canonical { height, round, .. } = request.canonical;
        let extension = match &request.extension {
            Extension::None => None,
            Extension::Sign(extension) => Some(extension_sign_bytes(&self.id, height, round, extension)),
        };
        self.with_open(|id, open, asked_at| {
            open.sign(id, &request.canonical, extension.as_deref(), max_height, asked_at)
        })
    }

    /// Signs a proposal.
    pub fn sign_proposal(&self, request: &ProposalRequest, max_height: Option<u64>) -> Result<Signed, Refusal> {
        self.with_open(|id, open, asked_at| open.sign(id, &request.canonical, None, max_height, asked_at))
    }

    /// Signs Celestia raw bytes, if the chain's configuration allows it. They carry a prefix that keeps them apart
    /// from everything the watermark guards, so no mark moves.
    pub fn sign_raw_bytes(&self, request: &RawBytesRequest) -> Result<Signature, Refusal> {
        if !self.allow_raw_bytes {
            return Err(Refusal::NotPermitted("raw bytes are signed only with `allow_raw_bytes = true` for the chain"));
        }
        self.with_open(|id, open, asked_at| {
            let sign_bytes = raw_sign_bytes(id, &request.raw_bytes, &request.unique_id);
            let messages = [sign_bytes.as_slice()];
            let ticket = open.signer.begin(&messages, asked_at).map_err(key_unavailable)?;
            Ok(open.finish(ticket, &messages)?.next().expect("a signature for every message"))
        })
    }

    /// Tells `act` when it was asked for: the wait for another node's request is part of this one's time.
    fn with_open<T>(&self, act: impl FnOnce(&ChainId, &mut Open, Instant) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let asked_at = Instant::now();
        match &mut *self.plane() {
            Plane::Closed(why) | Plane::Waiting { why, .. } => Err(why.clone()),
            Plane::Open(open) => {
                let result = act(&self.id, open, asked_at);
                if open.disk_failed {
                    self.stats.disk_failed();
                }
                result
            }
        }
    }

    fn plane(&self) -> MutexGuard<'_, Plane> {
        self.plane.lock().expect("a panic while the lock is held ends the process")
    }
}

impl Open {
    /// The one way to a signature. A device begins before the mark is flushed and works meanwhile; the release waits
    /// for both. What the device refuses at once, it refuses before the mark moves.
    fn sign(
        &mut self,
        id: &ChainId,
        asked: &Canonical,
        extension: Option<&[u8]>,
        max_height: Option<u64>,
        asked_at: Instant,
    ) -> Result<Signed, Refusal> {
        // A limit that refuses must do so before the mark moves.
        if let Some(max_height) = max_height.filter(|max_height| asked.height > *max_height) {
            return Err(Refusal::MaxHeight { height: asked.height, max_height });
        }
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
        let cached = self.cached.filter(|_| repeated);
        // An extension is always signed afresh: an application need not extend the same vote alike twice.
        let both = [sign_bytes.as_slice(), extension.unwrap_or_default()];
        let messages = &both[usize::from(cached.is_some())..1 + usize::from(extension.is_some())];
        let ticket = match messages.is_empty() {
            true => None,
            false => self.signer.begin(messages, asked_at).map_err(key_unavailable)?,
        };

        let flush_begin = Instant::now();
        let durable = if repeated {
            self.store.current()
        } else {
            self.forget_signature();
            self.store.advance(candidate.mark())
        };
        let flushed_in = (!repeated).then(|| flush_begin.elapsed());
        let durable = durable.map_err(|error| {
            self.disk_failed |= passing::store(&error);
            state_unusable(&self.state_file, &error)
        })?;

        let mut signatures = self.finish(ticket, messages)?;
        let vote = cached.or_else(|| signatures.next()).expect("a signature for every message");
        let signature = release(durable, id, &sign_bytes, vote);
        self.cached = Some(signature);
        Ok(Signed {
            timestamp,
            signature,
            repeated,
            extension_signature: signatures.next(),
            flushed_in,
            sequence: self.store.sequence(),
        })
    }

    /// A signature is good for its own mark alone.
    fn forget_signature(&mut self) {
        broken!("cache_of_another_mark" => return);
        self.cached = None;
    }

    /// Waits for the signatures that were begun, or makes them where there was nothing to begin. At most two: a vote and
    /// its extension.
    fn finish(
        &self,
        ticket: Option<Ticket>,
        messages: &[&[u8]],
    ) -> Result<impl Iterator<Item = Signature> + use<>, Refusal> {
        let mut signatures = [None; 2];
        match ticket {
            Some(ticket) => {
                let made = ticket.wait().map_err(key_unavailable)?;
                signatures.iter_mut().zip(made).for_each(|(place, signature)| *place = Some(signature));
            }
            None => {
                for (place, message) in signatures.iter_mut().zip(messages) {
                    *place = Some(self.signer.sign(message).map_err(key_unavailable)?);
                }
            }
        }
        Ok(signatures.into_iter().flatten())
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn key_unavailable(error: SignError) -> Refusal {
    Refusal::KeyUnavailable(error.to_string())
}

/// Lets a signature go, against the proof that the mark covering it is on the disk.
///
/// # Panics
/// If the bytes that were signed are not the message of the mark. Nothing in this program can be trusted then.
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

/// A state file's error as an answer.
pub fn state_unusable(path: &Path, error: &StoreError) -> Refusal {
    Refusal::StateUnusable(format!("state file {} {error}", path.display()))
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
