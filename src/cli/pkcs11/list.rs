//! Lists the tokens of a module, and the keys on a token.

use super::{
    call::{self, Closing, Secrets},
    errand::{Errand, Outcome},
    hex_of,
    target::{self, ModuleTarget, TokenTargetArgs, unexpected},
};
use crate::{
    cli::{CliError, ConfigArgs, Exit, output},
    keyring::pkcs11::{
        module::Listing,
        token_info::{PinState, TokenInfo},
    },
    process::foreign::ForeignText,
    provision::pkcs11::KeyInfo,
};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub(in crate::cli) struct Tokens {
    #[command(flatten)]
    config: ConfigArgs,
    /// Device profile to use instead of the configuration: a name in hsm-profiles/ or a path
    #[arg(long, value_name = "NAME|PATH")]
    profile: Option<String>,
    /// PKCS#11 module to use instead of the configuration
    #[arg(long, value_name = "PATH")]
    module: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ListKeys {
    #[command(flatten)]
    target: TokenTargetArgs,
}

impl Tokens {
    pub(super) fn run(self) -> Result<(), CliError> {
        let modules = target::modules(&self.config, self.profile.as_deref(), self.module.as_deref())?;
        let (mut texts, mut values, mut closing) = (Vec::new(), Vec::new(), Vec::new());
        let mut unreadable = Vec::new();
        for module in &modules {
            target::refuse_missing(module.path(), module.profile.as_ref())?;
            let hint = target::environment_hint(module.profile.as_ref());
            let listing = list(module, &mut closing);
            if let Some(hint) = hint.filter(|_| !matches!(&listing, Ok(listing) if !listing.tokens.is_empty())) {
                output::note(&hint);
            }
            let listing = listing?;
            for token in &listing.tokens {
                texts.push(describe_token(module.path(), token));
                values.push(token_json(module.path(), token));
            }
            for slot in listing.unreadable {
                unreadable.push((module.path().display().to_string(), ForeignText::from(slot)));
            }
        }
        let unreadable_json: Vec<_> =
            unreadable.iter().map(|(module, slot)| json!({ "module": module, "reason": &**slot })).collect();
        if self.json {
            output::print(&json!({ "schema": 1, "tokens": values, "unreadable": unreadable_json }).to_string())?;
        } else if !texts.is_empty() {
            output::print(&texts.join("\n\n"))?;
        } else if unreadable.is_empty() {
            output::print("no tokens")?;
        }
        drop(closing);
        if unreadable.is_empty() {
            return Ok(());
        }
        let slots: Vec<_> = unreadable.iter().map(|(module, slot)| format!("{slot} of {module}")).collect();
        Err(CliError::new(Exit::Io, format!("not every slot can be read: {}", slots.join("; "))))
    }
}

fn list(module: &ModuleTarget, closing: &mut Vec<Closing>) -> Result<Listing, CliError> {
    let order = module.order(Errand::ListTokens);
    let (outcome, process) = call::run(&order, module.environment(), Secrets::NONE)?.split();
    closing.push(process);
    match outcome {
        Outcome::Tokens(listing) => Ok(listing),
        _ => Err(unexpected()),
    }
}

impl ListKeys {
    pub(super) fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        let (outcome, _closing) = target.run(Errand::ListKeys, &[])?.split();
        let Outcome::Keys(keys) = outcome else { return Err(unexpected()) };
        let keys: Vec<KeyInfo> = keys.into_iter().map(KeyInfo::from).collect();
        output::print(&if self.target.json {
            json!({ "schema": 1, "keys": keys.iter().map(key_json).collect::<Vec<_>>() }).to_string()
        } else if keys.is_empty() {
            "no private keys".to_owned()
        } else {
            keys.iter().map(describe_key).collect::<Vec<_>>().join("\n\n")
        })
    }
}

fn describe_token(module: &Path, token: &TokenInfo) -> String {
    let TokenInfo { label, serial, model, manufacturer, initialised, pin, .. } = token;
    let pin = match (initialised, token.protected_path) {
        (false, _) => "none, the token is not initialised",
        (true, true) => "entered at the device",
        (true, false) => pin_word(*pin),
    };
    format!(
        "label   {label:?}\nserial  {serial}\nmodel   {model}\nmaker   {manufacturer}\npin     {pin}\nmodule  {}",
        module.display()
    )
}

fn token_json(module: &Path, token: &TokenInfo) -> Value {
    json!({
        "module": module.display().to_string(),
        "label": token.label,
        "serial": token.serial,
        "model": token.model,
        "manufacturer": token.manufacturer,
        "initialised": token.initialised,
        "pin": pin_word(token.pin),
        "pin_at_device": token.protected_path,
        "login_required": token.login_required,
    })
}

fn pin_word(state: PinState) -> &'static str {
    match state {
        PinState::FinalTry => "final try",
        PinState::Locked => "locked",
        PinState::Low => "low",
        PinState::Ok => "ok",
    }
}

/// What an operator types to name this key: its label, or its id if it has no label.
pub(super) fn typed_name(key: &KeyInfo) -> String {
    if key.label.is_empty() || key.label.contains(char::is_control) { hex_of(&key.id) } else { key.label.clone() }
}

/// A key as text. What the device does not report is shown as unknown.
pub(super) fn describe_key(key: &KeyInfo) -> String {
    let unknown = || "unknown".to_owned();
    let kind = key.key_type.map_or("not one that Highwater signs with".to_owned(), |kind| kind.to_string());
    let address = key.public_key.as_ref().map_or_else(unknown, |key| key.address_hex());
    let public_key = key.public_key.as_ref().map_or_else(unknown, |key| hex_of(key.as_bytes()));
    format!(
        "id       {}\nlabel    {:?}\ntype     {kind}\nkey      {public_key}\naddress  {address}\nborn     {}\n\
         leaves   {}\nshown    {}",
        hex_of(&key.id),
        key.label,
        birth(key),
        word(key.extractable, "extractable: the device exports it, wrapped by another key", "never"),
        word(key.sensitive, "never in the clear", "in the clear: sensitive is not set"),
    )
}

/// Where a key was made, as far as the device reports it.
pub(super) fn birth(key: &KeyInfo) -> &'static str {
    match (key.local, key.never_extractable) {
        (Some(true), Some(true)) => "in the device, and could never leave it",
        (Some(true), _) => "in the device, but it could leave it",
        (Some(false), _) => "outside: imported, so there may be copies",
        (None, _) => "unknown: the device does not say",
    }
}

fn word(flag: Option<bool>, yes: &'static str, no: &'static str) -> &'static str {
    match flag {
        Some(true) => yes,
        Some(false) => no,
        None => "unknown: the device does not say",
    }
}

pub(super) fn key_json(key: &KeyInfo) -> Value {
    json!({
        "id": hex_of(&key.id),
        "label": key.label,
        "algorithm": key.key_type.map(|kind| kind.name()),
        "public_key": key.public_key.as_ref().map(|key| hex_of(key.as_bytes())),
        "address": key.public_key.as_ref().map(|key| key.address_hex()),
        "born_in_device": key.local.zip(key.never_extractable).map(|(local, never)| local && never),
        "local": key.local,
        "never_extractable": key.never_extractable,
        "extractable": key.extractable,
        "sensitive": key.sensitive,
    })
}
