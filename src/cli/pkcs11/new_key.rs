//! `highwater pkcs11 generate` and `import`: put a new key on a token, and print the configuration for it.

use super::{
    KeyIdOrUri, KeyLabelOrUri,
    errand::{Errand, Outcome},
    hex_of,
    list::{birth, key_json},
    not_for_new_keys,
    section::{MadeKey, Section},
    target::{TokenTarget, TokenTargetArgs, unexpected},
};
use crate::{
    cli::{
        CliError, Exit, output,
        softsign::{self, Format, KeyKind},
    },
    config::{KeyFormat, KeyRole},
    keyring::{format, pkcs11::error::TokenError},
    provision::pkcs11::{KeyInfo, KeyName},
};
use clap::Args;
use highwater_core::consensus::{ChainId, PublicKey};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(in crate::cli) struct Generate {
    #[command(flatten)]
    target: TokenTargetArgs,
    #[command(flatten)]
    new: TokenKeyArgs,
    /// Let the device export the key, wrapped by another of its keys; for devices that are backed up this way
    #[arg(long)]
    extractable: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Import {
    #[command(flatten)]
    target: TokenTargetArgs,
    #[command(flatten)]
    new: TokenKeyArgs,
    /// Format of the file [default: detected from its content]
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    /// priv_validator_key.json, or any softsign key file that holds a seed
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Describes the new key.
#[derive(Args, Debug)]
struct TokenKeyArgs {
    /// CKA_ID of the new key, in hex; must not be in use
    #[arg(long, value_name = "HEX")]
    id: KeyIdOrUri,
    /// Label of the new key; must not be in use
    #[arg(long, value_name = "TEXT")]
    label: KeyLabelOrUri,
    /// Ed25519 for consensus, secp256k1 for account
    #[arg(short = 't', long = "type", value_enum, default_value_t = KeyKind::Consensus)]
    kind: KeyKind,
    /// The chain that the key will sign for
    #[arg(long, value_name = "ID")]
    chain: Option<String>,
}

impl Generate {
    pub(super) fn run(self) -> Result<(), CliError> {
        let name = self.new.name()?;
        let (target, chain) = prepare(&self.target, &self.new)?;
        let key_type = KeyRole::from(self.new.kind).key_type();
        let errand = Errand::Generate { name: name.clone(), key_type, extractable: self.extractable };
        let (outcome, _closing) = target.run(errand, &[])?.split();
        self.new.report("generated", &name, &self.target, &target, chain.as_ref(), &made(outcome)?)
    }
}

impl Import {
    pub(super) fn run(self) -> Result<(), CliError> {
        let name = self.new.name()?;
        let (target, chain) = prepare(&self.target, &self.new)?;
        let key_type = KeyRole::from(self.new.kind).key_type();
        let secret = softsign::load(&self.file, key_type, self.format)?;
        let Some(value) = secret.for_devices() else {
            return Err(CliError::new(Exit::Data, format!("{}: {}", self.file.display(), TokenError::Expanded)));
        };
        let errand = Errand::Import { name: name.clone(), key_type };
        let (outcome, _closing) = target.run(errand, &value)?.split();
        let made = made(outcome)?;
        if made.public_key != secret.public_key() {
            return Err(unexpected());
        }
        self.new.report("imported", &name, &self.target, &target, chain.as_ref(), &made)?;
        output::note(&format!(
            "destroy {} and every copy of it now: anyone who has it has the key. A key must never run in two places: stop \
             whatever signed with it until now for good before this signer starts",
            self.file.display()
        ));
        Ok(())
    }
}

/// A new key.
struct Made {
    /// As the device shows it, if it does.
    info: Option<KeyInfo>,
    /// Proven by a signature.
    public_key: PublicKey,
}

fn made(outcome: Outcome) -> Result<Made, CliError> {
    let Outcome::Made { info, public_key } = outcome else { return Err(unexpected()) };
    Ok(Made { info: info.map(KeyInfo::from), public_key: public_key.key().ok_or_else(unexpected)? })
}

/// Finds every mistake on the command line before touching the device.
fn prepare(args: &TokenTargetArgs, new: &TokenKeyArgs) -> Result<(TokenTarget, Option<ChainId>), CliError> {
    let named = match new.chain.as_deref().map(ChainId::new).transpose() {
        Ok(named) => named,
        Err(error) => return Err(CliError::new(Exit::Usage, error.to_string())),
    };
    let target = args.resolve()?;
    let chain = target.chain(named.as_ref())?.map(|chain| chain.id.clone());
    Ok((target, chain.or(named)))
}

impl TokenKeyArgs {
    fn name(&self) -> Result<KeyName, CliError> {
        match (&self.id, &self.label) {
            (KeyIdOrUri::Plain(id), KeyLabelOrUri::Plain(label)) => {
                Ok(KeyName { id: id.0.clone(), label: label.0.clone() })
            }
            _ => Err(not_for_new_keys()),
        }
    }

    /// Prints the new key and the configuration to paste.
    fn report(
        &self,
        done: &str,
        name: &KeyName,
        args: &TokenTargetArgs,
        target: &TokenTarget,
        chain: Option<&ChainId>,
        made: &Made,
    ) -> Result<(), CliError> {
        let Made { info, public_key } = made;
        let role = KeyRole::from(self.kind);
        let key_format = match target.chain(chain)? {
            Some(chain) => chain.key_format.clone(),
            None => KeyFormat::Hex,
        };
        let shown = format::show(&key_format, public_key);
        let new = MadeKey { chain, id: &name.id, label: &name.label, role, public_key: public_key.clone() };
        let section = target.as_section().with(&new);
        if args.json {
            let mut value = info.as_ref().map_or_else(|| json!({}), key_json);
            let more = json!({
                "schema": 1,
                "done": done,
                // The device may not show it.
                "public_key": hex_of(public_key.as_bytes()),
                "address": public_key.address_hex(),
                "chain_id": chain.map(ChainId::as_str),
                "key": shown,
                "section": section,
                "replaces_line": target.section.as_ref().map(|section| section.line),
            });
            merge(&mut value, more);
            return output::print(&value.to_string());
        }
        let born = info.as_ref().map_or("unknown", birth);
        let what_to_do = match (&target.section, &target.config) {
            (Some(section), Some(config)) => {
                let path = config.path.display();
                format!("In {path}, replace the [[providers.pkcs11]] on line {} with:", section.line)
            }
            _ => "Add this to the configuration:".to_owned(),
        };
        output::print(&format!(
            "{done}, and its signature over the self-test verifies\nid       {}\nlabel    {:?}\ntype     {}\n\
             key      {shown}\naddress  {}\nborn     {born}\n\n{what_to_do}\n\n{section}",
            hex_of(&name.id),
            name.label,
            public_key.key_type(),
            public_key.address_hex(),
        ))
    }
}

impl TokenTarget {
    fn as_section(&self) -> Section<'_> {
        Section {
            profile: &self.profile,
            profile_text: &self.profile_text,
            module: &self.module,
            token: &self.selector,
            pin: self.pin_source.as_ref(),
            present: self.section.as_ref(),
        }
    }
}

/// Puts the fields of one object into another.
fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
