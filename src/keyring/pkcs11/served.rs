//! The program of a child process, which signs with one token of one module.

use super::{
    error::{ErrorClass, TokenError},
    gate::{self, LoginGate},
    key_choice,
    reach::Reach,
    token::{Opening, Pin, Token},
    token_info::TokenInfo,
    token_key::TokenKey,
};
use crate::{
    config::pkcs11::{
        profile::{Profile, SessionMode},
        spec::TokenSpec,
    },
    keyring::{
        child::{
            login_memory::{LoginOutcome, TokenBeforeLogin},
            protocol::{ChildReport, SignRequest, encode_answer, encode_refused_pin},
        },
        device::Trouble,
    },
    process::{
        frames::{read_frame, read_json, write_frame},
        helper::standard_input,
        sandbox::{self, memory},
    },
};
use highwater_core::consensus::Signature;
use std::{env, io, os::unix::net::UnixStream, path::Path};

/// The program of the hidden command `hsm-child`. Its stream is standard input. Ends with the stream.
pub fn run() -> io::Result<()> {
    let mut stream = standard_input()?;
    let switches = read_json(&mut stream)?;
    let spec: TokenSpec = read_json(&mut stream)?;
    let mut reach = Reach::of(&spec, |name| env::var_os(name));
    let confined = sandbox::confine_module(switches, &reach.limits(&spec));
    reach.unlimited = confined == Ok(false);
    reach.probe();
    let pin = read_frame(&mut stream)?;
    // If the system does not allow it, the signer logs a warning.
    memory::lock(pin.as_slice());
    if let Err(why) = confined {
        let text = format!("cannot confine its process: {why}");
        return write_frame(&mut stream, &encode_answer(&Err(Trouble::Fatal(text.into()))));
    }
    let pin = (!pin.is_empty()).then(|| Pin::new(pin));
    let mut gate = SignersGate { stream: &mut stream, module: &spec.module, broken: None };
    let opened = open(&spec, pin, &mut gate);
    if let Some(error) = gate.broken {
        // The signer is gone, or does not let it log in.
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(()) } else { Err(error) };
    }
    let (token, keys) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let trouble = trouble_of(&spec.profile, &error, &reach.explain(&spec, &error));
            return write_frame(&mut stream, &encode_answer(&Err(trouble)));
        }
    };
    let found: Vec<_> = keys.iter().map(|key| key.public_key().map(|key| key.as_bytes().to_vec())).collect();
    write_frame(&mut stream, &ChildReport::Ready(serde_json::to_vec(&found)?).encode())?;
    loop {
        let body = match read_frame(&mut stream) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        write_frame(&mut stream, &answer(&spec.profile, sign(&token, &keys, &body)))?;
    }
}

/// The gate of a child: the signer decides, and learns when the login begins and ends.
struct SignersGate<'a> {
    stream: &'a mut UnixStream,
    module: &'a Path,
    /// Why the signer cannot be asked any more.
    broken: Option<io::Error>,
}

impl LoginGate for SignersGate<'_> {
    fn before(&mut self, token: &TokenInfo) -> Result<(), TokenError> {
        let report = ChildReport::LoginBegins(TokenBeforeLogin::new(self.module, token));
        let answer = write_frame(self.stream, &report.encode()).and_then(|()| read_frame(self.stream));
        answer.map(drop).map_err(|error| {
            let why = error.to_string();
            self.broken = Some(error);
            TokenError::NotSent { why }
        })
    }

    fn after(&mut self, outcome: LoginOutcome) {
        // If the signer has ended, the next write shows it.
        let _ = write_frame(self.stream, &ChildReport::LoginEnded(outcome).encode());
    }
}

fn open(spec: &TokenSpec, pin: Option<Pin>, gate: &mut dyn LoginGate) -> Result<(Token, Vec<TokenKey>), TokenError> {
    let read_write = spec.profile.session.mode == SessionMode::ReadWrite;
    let opening = Opening { read_write, gate: Some(gate), keys: &spec.keys };
    let mut token = Token::open_by(&spec.module, &spec.token, &spec.profile, pin.as_ref(), opening)?;
    drop(pin);
    let mut keys = Vec::new();
    for key in &spec.keys {
        keys.push(key_choice::find_key(&token, key)?);
    }
    // Logged in: other keys no longer need it.
    token.forget_pin_unless_wanted_by(&keys);
    Ok((token, keys))
}

/// `None` for a request that makes no sense.
fn sign(token: &Token, keys: &[TokenKey], body: &[u8]) -> Option<Result<Signature, TokenError>> {
    let (index, message) = SignRequest::decode(body)?;
    Some(token.sign(keys.get(index)?, message))
}

fn answer(profile: &Profile, signed: Option<Result<Signature, TokenError>>) -> Vec<u8> {
    match signed {
        None => encode_answer(&Err(Trouble::Broken("the signer sent a malformed request".into()))),
        Some(Ok(signature)) => encode_answer(&Ok(signature.as_bytes().to_vec())),
        Some(Err(error)) => match trouble_of(profile, &error, "") {
            Trouble::Fatal(text) if gate::is_refusal(&error) => encode_refused_pin(&text),
            trouble => encode_answer(&Err(trouble)),
        },
    }
}

/// Classifies an error. `hint` is appended to its text.
fn trouble_of(profile: &Profile, error: &TokenError, hint: &str) -> Trouble {
    let mut text = error.to_string();
    // Some devices use a standard code with their own meaning.
    if let Some(meaning) = error.codes().iter().find_map(|code| profile.error_meaning(code)) {
        text = format!("{text} (on this device: {meaning})");
    }
    text += hint;
    match error.class() {
        ErrorClass::Absent | ErrorClass::Broken => Trouble::Broken(text.into()),
        ErrorClass::Fatal => Trouble::Fatal(text.into()),
        ErrorClass::Rejected => Trouble::Rejected(text.into()),
    }
}
