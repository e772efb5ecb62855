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
    protocol::{SignRequest, decode_answer, read_frame, write_frame},
    spawner::Spawner,
};
use super::device::{Opener, Session, Trouble};
use highwater_core::consensus::{PublicKey, Signature};
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
        /// A child that takes longer than this to log in has hung.
        const PATIENCE: Duration = Duration::from_secs(20);
        let (mut stream, since) = match self.late.take() {
            Some(late) => late,
            None => (self.spawner.child(self.number)?, Instant::now()),
        };
        set_deadline(&stream, deadline)?;
        let ready = answer(&mut stream);
        if ready == Err(Trouble::Late) && since.elapsed() < PATIENCE {
            // Waited for again, not replaced: a login that is cut off can cost an attempt at the PIN, or destroy a
            // token that is written meanwhile.
            self.late = Some((stream, since));
            return Err(Trouble::Late);
        }
        let ready = ready.map_err(|trouble| match trouble {
            Trouble::Broken(text) if *text == *DIED => Trouble::Broken(
                format!(
                    "{DIED}; if it does so at every start, it may miss a file that it does not reach: `files` of its \
                     section adds one"
                )
                .into(),
            ),
            other => other,
        })?;
        let found: Vec<Option<Vec<u8>>> = serde_json::from_slice(&ready)
            .map_err(|error| Trouble::Broken(format!("the child process sent no list of keys: {error}").into()))?;
        for (found, pinned) in found.iter().zip(&self.keys) {
            // A key that cannot be read is proven by the self-test instead.
            if let Some(found) = found
                && *found != pinned.to_bytes()
            {
                let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
                return Err(Trouble::Fatal(
                    format!("the token holds key {found}, the configuration pins {pinned}").into(),
                ));
            }
        }
        Ok(Box::new(ChildSession { stream }))
    }
}

/// A child that is ready to sign.
struct ChildSession {
    stream: UnixStream,
}

impl Session for ChildSession {
    fn sign(&mut self, key: usize, message: &[u8], deadline: Instant) -> Result<Signature, Trouble> {
        set_deadline(&self.stream, deadline)?;
        write_frame(&mut self.stream, &SignRequest::encode(key, message)).map_err(trouble)?;
        let signature = answer(&mut self.stream)?;
        let signature = signature.try_into().map_err(|_| Trouble::Broken("the signature has no 64 bytes".into()))?;
        Ok(Signature(signature))
    }
}

fn answer(stream: &mut UnixStream) -> Result<Vec<u8>, Trouble> {
    decode_answer(&read_frame(stream).map_err(trouble)?)
}

fn set_deadline(stream: &UnixStream, deadline: Instant) -> Result<(), Trouble> {
    // A time-out of zero would mean none.
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let set = stream.set_read_timeout(Some(left)).and_then(|()| stream.set_write_timeout(Some(left)));
    set.map_err(trouble)
}

/// What is said when the child has ended.
const DIED: &str = "its process died, perhaps inside the module";

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn trouble(error: io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Trouble::Late,
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            Trouble::Broken(DIED.into())
        }
        _ => Trouble::Broken(format!("its process cannot be reached: {error}").into()),
    }
}
