//! A provider in its own process, as the signer sees it.
//!
//! The child knows the PIN and the keys of its token, but no network link and no watermark. If it fails, the signer
//! kills the process and asks the spawner for another. The code that the child runs is elsewhere: for a PKCS#11 token
//! in [`super::pkcs11`].
//!
//! | file | what | process |
//! | --- | --- | --- |
//! | `spawner` | starts children | spawner and signer |
//! | `pin`, `locked` | reads PINs and keeps them | spawner |
//! | `login_memory` | which PIN a token has refused, across restarts | spawner, commands |
//! | `pace` | how often there is a login without a signature | signer |
//! | `protocol` | the messages between them | all |

mod locked;
pub mod login_memory;
mod pace;
pub mod pin;
pub mod protocol;
pub mod spawner;

use self::{
    login_memory::{LoginOutcome, TokenBeforeLogin},
    pace::LoginPace,
    protocol::{ChildReport, SignRequest, decode_answer, is_refused_pin},
    spawner::Spawner,
};
use super::{
    device::{Opener, Session, Trouble},
    pkcs11::reach::ALLOWS,
};
use crate::{
    process::{
        foreign::ForeignText,
        frames::{read_frame, write_frame},
    },
    record::utc,
};
use highwater_core::{
    consensus::{KeyType, PublicKey, Signature},
    hex::Hex,
};
use std::{
    io,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Opens children for one token.
pub struct ChildOpener {
    spawner: Arc<Spawner>,
    number: usize,
    keys: Vec<PublicKey>,
    /// A child that was not ready in time.
    late: Option<OpeningChild>,
    pace: LoginPace,
    /// Why the last login led to no signature.
    last: Option<Trouble>,
}

/// A child that opens its token.
struct OpeningChild {
    stream: UnixStream,
    /// When it was started, or when its login ended.
    since: Instant,
    /// The login in progress, and since when in UTC.
    login: Option<String>,
    /// The token that it has found.
    token: Option<TokenBeforeLogin>,
}

impl ChildOpener {
    /// Opens children for the token with this number in the spawner's plans. The token must hold `keys`.
    pub fn new(spawner: Arc<Spawner>, number: usize, keys: Vec<PublicKey>) -> Self {
        Self { spawner, number, keys, late: None, pace: LoginPace::default(), last: None }
    }

    /// The text with how the child ended and what its module wrote last.
    fn with_last_words(&self, text: &str) -> ForeignText {
        let words = self.spawner.last_words(self.number);
        let general = text.find(ALLOWS).unwrap_or(text.len());
        format!("{}{words}{}", &text[..general], &text[general..]).into()
    }

    fn opening_child(&mut self) -> Result<OpeningChild, Trouble> {
        if let Some(late) = self.late.take() {
            return Ok(late);
        }
        if let Some(last) = &self.last
            && !self.pace.allows_login()
        {
            return Err(last.clone());
        }
        let stream = self.spawner.child(self.number)?;
        Ok(OpeningChild { stream, since: Instant::now(), login: None, token: None })
    }

    /// Waits until the child is ready, at most until the deadline. Returns the public keys that it found.
    fn wait_for(&mut self, mut child: OpeningChild, deadline: Instant) -> Result<OpenChild, Trouble> {
        /// A child that takes longer than this without a login has hung.
        const PATIENCE: Duration = Duration::from_secs(20);
        /// While a login is in progress, its device says so this often.
        const LOGIN_INTERVAL: Duration = Duration::from_secs(1);
        loop {
            let until = if child.login.is_some() { deadline.min(Instant::now() + LOGIN_INTERVAL) } else { deadline };
            set_deadline(&child.stream, until)?;
            match report(&mut child.stream) {
                Ok(ChildReport::Ready(keys)) => {
                    return Ok(OpenChild { stream: child.stream, token: child.token, keys });
                }
                Ok(ChildReport::LoginBegins(token)) => {
                    if let Err(refused) = self.spawner.login_begins(self.number, &token) {
                        self.pace.note_refusal();
                        return Err(refused);
                    }
                    self.pace.note_login();
                    if let Err(error) = write_frame(&mut child.stream, &[]) {
                        // It was not told to log in, so no PIN was sent.
                        self.spawner.login_ended(self.number, &token, &LoginOutcome::Trouble);
                        return Err(no_answer(error).into());
                    }
                    (child.login, child.token) = (Some(utc::now()), Some(token));
                }
                Ok(ChildReport::LoginEnded(outcome)) => {
                    (child.login, child.since) = (None, Instant::now());
                    if let Some(token) = &child.token {
                        self.spawner.login_ended(self.number, token, &outcome);
                    }
                }
                Err(NoAnswer::Died) if child.login.is_some() => {
                    return Err(Trouble::Fatal(format!("{DIED}, while it logged in to its token").into()));
                }
                Err(NoAnswer::Died) => {
                    return Err(Trouble::Broken(
                        format!(
                            "{DIED}; if it does so at every start, it may need a file that its sandbox hides: add it to \
                             `files` in its section"
                        )
                        .into(),
                    ));
                }
                // It is waited for again, not replaced: cutting off a login can cost an attempt at the PIN, or destroy
                // a token that is written meanwhile. A login is waited for however long it takes.
                Err(NoAnswer::Trouble(Trouble::Late)) => {
                    let trouble = match &child.login {
                        Some(since) => Trouble::LoggingIn(
                            format!(
                                "C_Login was called at {since} and has not returned yet. It is waited for: a login that is \
                                 cut off can cost an attempt at the PIN"
                            )
                            .into(),
                        ),
                        None => Trouble::Late,
                    };
                    if child.login.is_some() || child.since.elapsed() < PATIENCE {
                        self.late = Some(child);
                    }
                    return Err(trouble);
                }
                Err(NoAnswer::Trouble(trouble)) => return Err(trouble),
            }
        }
    }

    /// Compares what the child has found with the pinned keys.
    fn refuse_other_keys(&self, ready: &[u8]) -> Result<(), Trouble> {
        let found: Vec<Option<Vec<u8>>> = serde_json::from_slice(ready)
            .map_err(|error| Trouble::Broken(format!("the child process sent no list of keys: {error}").into()))?;
        for (found, pinned) in found.iter().zip(&self.keys) {
            // A key that cannot be read is proven by the self-test instead.
            if let Some(found) = found
                && found != pinned.as_bytes()
            {
                return Err(Trouble::Fatal(
                    format!("the token holds key {}, but the configuration pins {pinned}", Hex(found)).into(),
                ));
            }
        }
        Ok(())
    }
}

impl Opener for ChildOpener {
    fn open(&mut self, deadline: Instant) -> Result<Box<dyn Session>, Trouble> {
        /// The time of a request is shorter.
        const PROBE: Duration = Duration::from_millis(1500);
        let is_probe = deadline.saturating_duration_since(Instant::now()) > PROBE;
        let child = self.opening_child()?;
        let opened = self.wait_for(child, deadline);
        let opened = opened.and_then(|child| self.refuse_other_keys(&child.keys).map(|()| child));
        let opened = opened.map_err(|trouble| match trouble {
            // A request does not wait for words.
            trouble if !is_probe => trouble,
            // The child is still at work, or there is none.
            Trouble::Busy | Trouble::Late | Trouble::LoggingIn(_) | Trouble::Unreached(_) => trouble,
            Trouble::Broken(text) => Trouble::Broken(self.with_last_words(&text)),
            Trouble::Fatal(text) => Trouble::Fatal(self.with_last_words(&text)),
            Trouble::Rejected(text) => Trouble::Rejected(self.with_last_words(&text)),
            Trouble::Temporary(text) => Trouble::Temporary(self.with_last_words(&text)),
            Trouble::WrongPassword(text) => Trouble::WrongPassword(self.with_last_words(&text)),
        });
        self.last = match &opened {
            Ok(_) => Some(Trouble::Broken("it was logged in to several times, but signed nothing".into())),
            Err(trouble) => Some(trouble.clone()),
        };
        let key_types = self.keys.iter().map(PublicKey::key_type).collect();
        let OpenChild { stream, token, .. } = opened?;
        let login = token.map(|token| (Arc::clone(&self.spawner), self.number, token));
        Ok(Box::new(ChildSession { stream, key_types, login, signed: self.pace.signed() }))
    }
}

/// A child that has opened its token.
struct OpenChild {
    stream: UnixStream,
    /// The token to which it has logged in.
    token: Option<TokenBeforeLogin>,
    /// In JSON, the public keys that it found.
    keys: Vec<u8>,
}

/// A child that is ready to sign.
struct ChildSession {
    stream: UnixStream,
    /// Of the keys, in their order.
    key_types: Vec<KeyType>,
    /// Whom to tell if the token refuses its PIN later, for one use of a key.
    login: Option<(Arc<Spawner>, usize, TokenBeforeLogin)>,
    /// Set by each signature.
    signed: Arc<AtomicBool>,
}

impl Session for ChildSession {
    fn sign(&mut self, key: usize, message: &[u8], deadline: Instant) -> Result<Signature, Trouble> {
        set_deadline(&self.stream, deadline)?;
        write_frame(&mut self.stream, &SignRequest::encode(key, message)).map_err(no_answer)?;
        let body = read_frame(&mut self.stream).map_err(no_answer)?;
        let decoded = decode_answer(&body);
        if let (Err(Trouble::Fatal(text)), true) = (&decoded, is_refused_pin(&body))
            && let Some((spawner, number, token)) = &self.login
        {
            spawner.login_ended(*number, token, &LoginOutcome::Refused(text.to_string()));
        }
        let signature = decoded?;
        let (key_type, bytes) = (self.key_types[key], signature.len());
        let expected = key_type.signature_len();
        if bytes == expected {
            self.signed.store(true, Relaxed);
            Ok(Signature::new(&signature))
        } else {
            let text = format!("its {key_type} signature has {bytes} bytes instead of {expected}");
            Err(Trouble::Broken(text.into()))
        }
    }
}

/// Why a child has not done what it was asked.
enum NoAnswer {
    /// Its process has ended.
    Died,
    Trouble(Trouble),
}

impl From<NoAnswer> for Trouble {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::Died => Self::Broken(DIED.into()),
            NoAnswer::Trouble(trouble) => trouble,
        }
    }
}

fn report(stream: &mut UnixStream) -> Result<ChildReport, NoAnswer> {
    ChildReport::decode(&read_frame(stream).map_err(no_answer)?).map_err(NoAnswer::Trouble)
}

fn set_deadline(stream: &UnixStream, deadline: Instant) -> Result<(), NoAnswer> {
    // A time-out of zero would mean none.
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let set = stream.set_read_timeout(Some(left)).and_then(|()| stream.set_write_timeout(Some(left)));
    set.map_err(no_answer)
}

/// The text for a child that has ended.
const DIED: &str = "its process died, perhaps inside the module";

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn no_answer(error: io::Error) -> NoAnswer {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => NoAnswer::Trouble(Trouble::Late),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => NoAnswer::Died,
        _ => NoAnswer::Trouble(Trouble::Broken(format!("cannot reach its process: {error}").into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::encode_answer;

    #[test]
    fn a_signature_has_the_length_that_its_kind_of_key_makes() {
        for key_type in KeyType::ALL {
            let right = key_type.signature_len();
            for length in [0, right - 1, right, right + 1] {
                let (ours, mut childs) = UnixStream::pair().unwrap();
                let mut session =
                    ChildSession { stream: ours, key_types: vec![*key_type], login: None, signed: Arc::default() };
                write_frame(&mut childs, &encode_answer(&Ok(vec![7; length]))).unwrap();
                let signed = session.sign(0, b"message", Instant::now() + Duration::from_secs(10));
                match signed {
                    Ok(signature) => assert_eq!((signature.as_bytes(), length), (&vec![7; right][..], right)),
                    Err(Trouble::Broken(text)) => {
                        assert!(length != right && text.contains("bytes instead of"), "{text}")
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
