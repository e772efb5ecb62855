//! The program of the process that calls a module for one command.
//!
//! It is confined as the child that signs, before it loads the module: what works here works in the signer, and a
//! module that needs more says so before a validator depends on it. That sandbox lets the module write where its own
//! configuration keeps the tokens, so keys can be made in it too.

use super::errand::{Confinement, Errand, Event, Order, Outcome, WireKey, WirePublicKey};
use crate::{
    cli::{CliError, Exit},
    config::pkcs11::{
        profile::{Profile, SessionMode},
        spec::{ObjectSelector, TokenSpec},
    },
    keyring::{
        child::login_memory::{LoginOutcome, TokenBeforeLogin},
        pkcs11::{
            calls,
            error::TokenError,
            gate::LoginGate,
            module::Module,
            reach::Reach,
            token::{Opening, Pin, Token},
            token_info::TokenInfo,
        },
        softsign::SecretKey,
    },
    process::{
        frames::{read_frame, read_json, write_json},
        helper::standard_input,
        lock::lock,
        sandbox::{self, memory},
    },
    provision::pkcs11::KeyInfo,
};
use highwater_core::{consensus::PublicKey, signer::SELF_TEST};
use std::{
    any::Any,
    env, io,
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};
use zeroize::Zeroizing;

/// What must live until the outcome is sent: closing it calls the module again, and that may never return.
type Opened = Option<Box<dyn Any>>;

/// The program of the hidden command. Its stream is standard input.
pub(in crate::cli) fn run() -> io::Result<()> {
    let mut stream = standard_input()?;
    let order: Order = read_json(&mut stream)?;
    let pin = read_frame(&mut stream)?;
    let secret = read_frame(&mut stream)?;
    memory::lock(pin.as_slice());
    memory::lock(secret.as_slice());
    let mut reach = Reach::of(&order.spec, |name| env::var_os(name));
    if let Confinement::AsSigner(switches) = order.confinement {
        if let Err(why) = sandbox::confine_module(switches, &reach.limits(&order.spec)) {
            let error = CliError::new(Exit::Config, format!("cannot confine the module's process: {why}"));
            return write_json(&mut stream, &Event::failed(error));
        }
        reach.probe();
    }
    let events = Arc::new(Mutex::new(stream));
    let watched = Arc::clone(&events);
    // If the command has gone, what was begun is still brought to its end.
    calls::watch(move |call| tell(&watched, &Event::Calls(call.to_owned())));

    let mut opened: Opened = None;
    let work = Work { order, pin: (!pin.is_empty()).then(|| Pin::new(pin)), secret, events: &events };
    let event = match work.run(&mut opened) {
        Ok(outcome) => Event::Done(outcome),
        Err(Failure::Said(error)) => Event::failed(error),
        Err(Failure::Token(error)) => Event::failed(work.explain(&reach, error)),
    };
    tell(&events, &event);
    drop(opened);
    Ok(())
}

fn tell(events: &Mutex<UnixStream>, event: &Event) {
    let _ = write_json(&mut *lock(events), event);
}

enum Failure {
    Said(CliError),
    Token(TokenError),
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self::Said(error)
    }
}

/// The gate of this process: the command decides, because it can read the notes.
struct CommandsGate<'a> {
    events: &'a Mutex<UnixStream>,
    module: &'a Path,
}

impl LoginGate for CommandsGate<'_> {
    fn before(&mut self, token: &TokenInfo) -> Result<(), TokenError> {
        tell(self.events, &Event::LoginBegins(TokenBeforeLogin::new(self.module, token)));
        let answer: io::Result<Result<(), String>> = read_json(&mut *lock(self.events));
        let may = answer.unwrap_or_else(|error| Err(error.to_string()));
        may.map_err(|why| TokenError::NotSent { why })
    }

    fn after(&mut self, outcome: LoginOutcome) {
        tell(self.events, &Event::LoginEnded(outcome));
    }
}

struct Work<'a> {
    order: Order,
    pin: Option<Pin>,
    /// The key to import.
    secret: Zeroizing<Vec<u8>>,
    events: &'a Mutex<UnixStream>,
}

impl Work<'_> {
    fn run(&self, opened: &mut Opened) -> Result<Outcome, Failure> {
        match &self.order.errand {
            Errand::ListTokens => {
                let module = Module::load(&self.order.spec.module, Some(&self.order.spec.profile))?;
                let listing = module.listing();
                *opened = Some(Box::new(module));
                Ok(Outcome::Tokens(listing?))
            }
            errand => {
                let TokenSpec { module, token, profile, .. } = &self.order.spec;
                let read_write = errand.changes() || profile.session.mode == SessionMode::ReadWrite;
                let mut gate = CommandsGate { events: self.events, module };
                let opening = Opening { read_write, gate: Some(&mut gate), keys: &self.order.spec.keys };
                let token = Token::open_by(module, token, profile, self.pin.as_ref(), opening)?;
                let outcome = self.on(&token);
                *opened = Some(Box::new(token));
                outcome
            }
        }
    }

    fn on(&self, token: &Token) -> Result<Outcome, Failure> {
        match &self.order.errand {
            Errand::Delete { object, shown } => {
                let found = token.look_at(object)?.as_ref().map(WireKey::from);
                if shown.is_some() && *shown != found {
                    let text = "nothing was deleted: the key has changed since it was shown";
                    return Err(CliError::new(Exit::Io, text).into());
                }
                token.delete(object)?;
                Ok(Outcome::Deleted(found))
            }
            Errand::Generate { name, key_type, extractable } => {
                let key = token.generate(name, *key_type, *extractable)?;
                let public_key = key.public_key().ok_or(TokenError::Unreadable)?;
                Ok(made(token, &name.id, &public_key))
            }
            Errand::Import { name, key_type } => {
                let secret = SecretKey::from_raw(*key_type, &self.secret)
                    .map_err(|_| CliError::new(Exit::Software, "the key to import did not arrive as one"))?;
                token.import(name, &secret)?;
                Ok(made(token, &name.id, &secret.public_key()))
            }
            Errand::ListKeys => Ok(Outcome::Keys(token.list_keys()?.iter().map(WireKey::from).collect())),
            Errand::ListTokens => Err(CliError::new(Exit::Software, "tokens are listed without opening one").into()),
            Errand::Look { object } => match token.look_at(object)? {
                Some(key) => Ok(Outcome::Key(WireKey::from(&key))),
                None => Err(no_key(token, object)?.into()),
            },
            Errand::Test { object, pinned, count } => self.test(token, object, pinned, *count),
        }
    }

    /// Signs the self-test again and again on one session, as the signer does.
    fn test(
        &self,
        token: &Token,
        object: &ObjectSelector,
        pinned: &[(ObjectSelector, WirePublicKey)],
        count: usize,
    ) -> Result<Outcome, Failure> {
        let Some(info) = token.look_at(object)? else { return Err(no_key(token, object)?.into()) };
        let pinned = pinned.iter().find(|(selector, _)| selector.names(&info.id, &info.label));
        let pinned = pinned.and_then(|(_, key)| key.key());
        let Some(key_type) = info.key_type.or(pinned.as_ref().map(PublicKey::key_type)) else {
            let text = format!("the key with {object} is not one that Highwater signs with");
            return Err(CliError::new(Exit::Data, text).into());
        };
        let key = token.find_key(object, key_type)?;
        if let (Some(shown), Some(pinned)) = (key.public_key(), &pinned)
            && shown != *pinned
        {
            let text = format!("the token holds key {shown}, but the configuration pins {pinned}");
            return Err(CliError::new(Exit::Data, text).into());
        }
        let public_key = pinned.or(key.public_key()).ok_or_else(|| {
            let text = "the device does not show the key's public half: pin it with `public_key` in the configuration, so \
                        that the signatures can be verified";
            CliError::new(Exit::Data, text)
        })?;
        let mut times = Vec::with_capacity(count);
        tell(self.events, &Event::Calls("sign".to_owned()));
        for done in 1..=count {
            let start = Instant::now();
            let signature = token.sign(&key, SELF_TEST)?;
            times.push(start.elapsed());
            if !public_key.verifies(SELF_TEST, &signature) {
                let text = format!("signature {done} of {count} does not verify: do not sign with this key");
                return Err(CliError::new(Exit::Io, text).into());
            }
            tell(self.events, &Event::Signed { done, total: count });
        }
        times.sort_unstable();
        Ok(Outcome::Tested { info: WireKey::from(&info), public_key: WirePublicKey::from(&public_key), times })
    }

    /// The error with what this device means by its code, and with what the sandbox allows.
    fn explain(&self, reach: &Reach, error: TokenError) -> CliError {
        let spec = &self.order.spec;
        let meaning = meaning_of(&spec.profile, &error);
        let hint = match self.order.confinement {
            Confinement::AsSigner(_) => reach.explain(spec, &error),
            Confinement::None => String::new(),
        };
        let mut error = CliError::from(error);
        error.message += &meaning;
        error.message += &hint;
        error
    }
}

/// Some devices use a standard code with their own meaning.
fn meaning_of(profile: &Profile, error: &TokenError) -> String {
    let meaning = error.codes().iter().find_map(|code| profile.error_meaning(code).map(str::to_owned));
    meaning.map_or_else(String::new, |meaning| format!(" (on this device: {meaning})"))
}

/// A new key is there and proven, whether or not it can be shown.
fn made(token: &Token, id: &[u8], public_key: &PublicKey) -> Outcome {
    let info = token.look_at(&ObjectSelector::Id(id.to_vec())).ok().flatten();
    Outcome::Made { info: info.as_ref().map(|key: &KeyInfo| WireKey::from(key)), public_key: public_key.into() }
}

/// The error for a missing key.
fn no_key(token: &Token, selector: &ObjectSelector) -> Result<TokenError, TokenError> {
    let present = token.list_keys()?.iter().map(name_of).collect();
    Ok(TokenError::NoKey { object: selector.clone(), present })
}

/// Id and label on one line.
fn name_of(key: &KeyInfo) -> String {
    format!("{} {}", ObjectSelector::Id(key.id.clone()), ObjectSelector::Label(key.label.clone()))
}
