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
//! | `protocol` | the messages between them | all |

mod locked;
pub mod pin;
pub mod protocol;
pub mod spawner;

use self::{
    protocol::{SignRequest, decode_answer},
    spawner::Spawner,
};
use super::{
    device::{Opener, Session, Trouble},
    pkcs11::reach::ALLOWS,
};
use crate::process::{
    foreign::ForeignText,
    frames::{read_frame, write_frame},
};
use highwater_core::{
    consensus::{KeyType, PublicKey, Signature},
    hex::Hex,
};
use std::{
    io,
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

/// Opens children for one token.
pub struct ChildOpener {
    spawner: Arc<Spawner>,
    number: usize,
    keys: Vec<PublicKey>,
    /// A child that was not ready in time, and when it was started.
    late: Option<(UnixStream, Instant)>,
}

impl ChildOpener {
    /// Opens children for the token with this number in the spawner's plans. The token must hold `keys`.
    pub fn new(spawner: Arc<Spawner>, number: usize, keys: Vec<PublicKey>) -> Self {
        Self { spawner, number, keys, late: None }
    }
}

impl Opener for ChildOpener {
    fn open(&mut self, deadline: Instant) -> Result<Box<dyn Session>, Trouble> {
        self.open_child(deadline).map_err(|trouble| match trouble {
            // The child is still at work, or there is none.
            Trouble::Busy | Trouble::Late => trouble,
            Trouble::Broken(text) => Trouble::Broken(self.with_last_words(&text)),
            Trouble::Fatal(text) => Trouble::Fatal(self.with_last_words(&text)),
            Trouble::Rejected(text) => Trouble::Rejected(self.with_last_words(&text)),
            Trouble::WrongPassword(text) => Trouble::WrongPassword(self.with_last_words(&text)),
        })
    }
}

impl ChildOpener {
    /// The text with how the child ended and what its module wrote last.
    fn with_last_words(&self, text: &str) -> ForeignText {
        let words = self.spawner.last_words(self.number);
        let general = text.find(ALLOWS).unwrap_or(text.len());
        format!("{}{words}{}", &text[..general], &text[general..]).into()
    }

    fn open_child(&mut self, deadline: Instant) -> Result<Box<dyn Session>, Trouble> {
        /// A child that takes longer than this to log in has hung.
        const PATIENCE: Duration = Duration::from_secs(20);
        let (mut stream, since) = match self.late.take() {
            Some(late) => late,
            None => (self.spawner.child(self.number)?, Instant::now()),
        };
        set_deadline(&stream, deadline)?;
        let ready = match answer(&mut stream) {
            Ok(ready) => ready,
            Err(NoAnswer::Died) => {
                return Err(Trouble::Broken(
                    format!(
                        "{DIED}; if it does so at every start, it may need a file that its sandbox hides: add it to `files` in its \
                         section"
                    )
                    .into(),
                ));
            }
            Err(NoAnswer::Trouble(Trouble::Late)) if since.elapsed() < PATIENCE => {
                // It is waited for again, not replaced: cutting off a login can cost an attempt at the PIN, or destroy a
                // token that is written meanwhile.
                self.late = Some((stream, since));
                return Err(Trouble::Late);
            }
            Err(NoAnswer::Trouble(trouble)) => return Err(trouble),
        };
        let found: Vec<Option<Vec<u8>>> = serde_json::from_slice(&ready)
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
        let key_types = self.keys.iter().map(PublicKey::key_type).collect();
        Ok(Box::new(ChildSession { stream, key_types }))
    }
}

/// A child that is ready to sign.
struct ChildSession {
    stream: UnixStream,
    /// Of the keys, in their order.
    key_types: Vec<KeyType>,
}

impl Session for ChildSession {
    fn sign(&mut self, key: usize, message: &[u8], deadline: Instant) -> Result<Signature, Trouble> {
        set_deadline(&self.stream, deadline)?;
        write_frame(&mut self.stream, &SignRequest::encode(key, message)).map_err(no_answer)?;
        let signature = answer(&mut self.stream)?;
        let (key_type, bytes) = (self.key_types[key], signature.len());
        let expected = key_type.signature_len();
        if bytes == expected {
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

fn answer(stream: &mut UnixStream) -> Result<Vec<u8>, NoAnswer> {
    decode_answer(&read_frame(stream).map_err(no_answer)?).map_err(NoAnswer::Trouble)
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
                let mut session = ChildSession { stream: ours, key_types: vec![*key_type] };
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
