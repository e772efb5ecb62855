//! The child process that talks to one token of one module, from both sides.
//!
//! It knows the PIN and the keys of its token, and neither a network link nor a watermark. A module is somebody else's
//! C code: whatever it does to its process, the signer kills that process and asks for another.

use super::{
    error::{ErrorClass, TokenError},
    profile::Profile,
    protocol::{SignRequest, decode_answer, encode_answer, read_frame, read_json, write_frame},
    reach::Reach,
    spawner::Spawner,
    spec::{KeySpec, TokenSpec},
    token::{Key, Pin, Token},
};
use crate::{
    consensus::{KeyType, PublicKey, Signature},
    keyring::device::{Opener, Session, Trouble},
    process::{
        helper::standard_input,
        sandbox::{self, memory},
    },
};
use std::{
    env, io,
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

/// Opens children for one token.
pub struct ChildOpener {
    spawner: Arc<Spawner>,
    number: usize,
    keys: Vec<PublicKey>,
    /// A child that was not ready in time, and since when it is awaited.
    late: Option<(UnixStream, Instant)>,
}

impl ChildOpener {
    /// For the token of that number in the spawner's plans, which must hold `keys`.
    pub fn new(spawner: Arc<Spawner>, number: usize, keys: Vec<PublicKey>) -> Self {
        Self { spawner, number, keys, late: None }
    }
}

impl Opener for ChildOpener {
    fn open(&mut self, deadline: Instant) -> Result<Box<dyn Session>, Trouble> {
        /// A child that takes longer to log in hangs.
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

/// The program of the hidden command `hsm-child`: its stream is standard input. Ends with the stream.
pub fn run() -> io::Result<()> {
    let mut stream = standard_input()?;
    let switches = read_json(&mut stream)?;
    let spec: TokenSpec = read_json(&mut stream)?;
    let mut reach = Reach::of(&spec, |name| env::var_os(name));
    let confined = sandbox::confine_module(switches, &reach.limits(&spec));
    reach.probe();
    let pin = read_frame(&mut stream)?;
    // As far as the system lets us: the signer says whether it does.
    memory::lock(pin.as_slice());
    if let Err(why) = confined {
        let text = format!("its process cannot be confined: {why}");
        return write_frame(&mut stream, &encode_answer(&Err(Trouble::Fatal(text.into()))));
    }
    let pin = (!pin.is_empty()).then(|| Pin::new(pin));
    let (token, keys) = match open(&spec, pin) {
        Ok(opened) => opened,
        Err(error) => {
            let trouble = trouble_of(&spec.profile, &error, &reach.explain(&spec, &error));
            return write_frame(&mut stream, &encode_answer(&Err(trouble)));
        }
    };
    let found: Vec<_> = keys.iter().map(|key| key.public_key().map(|key| key.to_bytes())).collect();
    write_frame(&mut stream, &encode_answer(&Ok(serde_json::to_vec(&found)?)))?;
    loop {
        let body = match read_frame(&mut stream) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        write_frame(&mut stream, &encode_answer(&sign(&spec.profile, &token, &keys, &body)))?;
    }
}

fn open(spec: &TokenSpec, pin: Option<Pin>) -> Result<(Token, Vec<Key>), TokenError> {
    let token = Token::open(&spec.module, &spec.token, &spec.profile, pin.as_ref())?;
    // Logged in once: the PIN has done its work here.
    drop(pin);
    let find = |key: &KeySpec| token.find_key(&key.object, KeyType::from(key.key_type));
    let keys = spec.keys.iter().map(find).collect::<Result<_, _>>()?;
    Ok((token, keys))
}

fn sign(profile: &Profile, token: &Token, keys: &[Key], body: &[u8]) -> Result<Vec<u8>, Trouble> {
    let wrong = || Trouble::Broken("the signer sent a request of the wrong form".into());
    let (index, message) = SignRequest::decode(body).ok_or_else(wrong)?;
    let key = keys.get(index).ok_or_else(wrong)?;
    let signature = token.sign(key, message).map_err(|error| trouble_of(profile, &error, ""))?;
    Ok(signature.0.to_vec())
}

/// `hint` follows what the error says.
fn trouble_of(profile: &Profile, error: &TokenError, hint: &str) -> Trouble {
    let mut text = error.to_string();
    // Some devices use a standard code for something of their own.
    let codes = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| word.starts_with("CKR_"));
    if let Some(meaning) = codes.filter_map(|code| profile.error_meaning(code)).next() {
        text = format!("{text} (on this device: {meaning})");
    }
    text += hint;
    match error.class() {
        ErrorClass::Absent | ErrorClass::Broken => Trouble::Broken(text.into()),
        ErrorClass::Fatal => Trouble::Fatal(text.into()),
        ErrorClass::Rejected => Trouble::Rejected(text.into()),
    }
}
