//! `highwater pkcs11 delete`: deletes one key, after showing it.

use super::{
    KeyArgs,
    errand::{Errand, Outcome, WireKey},
    list::{describe_key, key_json, typed_name},
    target::{TokenTarget, TokenTargetArgs, unexpected},
};
use crate::{
    cli::{CliError, Exit, output},
    config::pkcs11::spec::ObjectSelector,
    provision::pkcs11::KeyInfo,
};
use clap::Args;
use serde_json::json;
use std::io::{self, IsTerminal as _};

#[derive(Args, Debug)]
pub(in crate::cli) struct Delete {
    #[command(flatten)]
    target: TokenTargetArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

impl Delete {
    pub(super) fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        let object = self.key.selector()?;
        let shown = if self.yes { None } else { Some(WireKey::from(&ask(&target, &object)?)) };
        let (outcome, _closing) = target.run(Errand::Delete { object, shown }, &[])?.split();
        let Outcome::Deleted(deleted) = outcome else { return Err(unexpected()) };
        let deleted = deleted.map(KeyInfo::from);
        if self.target.json {
            let key = deleted.as_ref().map(key_json);
            return output::print(&json!({ "schema": 1, "deleted": true, "key": key }).to_string());
        }
        let what = deleted.map_or("a public key without a private key".to_owned(), |key| describe_key(&key));
        output::print(&format!("deleted\n{what}"))
    }
}

/// Shows the key and makes the operator type its name.
fn ask(target: &TokenTarget, object: &ObjectSelector) -> Result<KeyInfo, CliError> {
    let (outcome, closing) = target.run(Errand::Look { object: object.clone() }, &[])?.split();
    let Outcome::Key(key) = outcome else { return Err(unexpected()) };
    let key = KeyInfo::from(key);
    drop(closing);
    output::note(&format!("on the {}:\n{}\n", target.selector, describe_key(&key)));
    let refused = |text: &str| Err(CliError::new(Exit::Usage, text));
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return refused("nothing was deleted: there is no terminal to ask on. Add --yes if this is the key");
    }
    let name = typed_name(&key);
    output::note(&format!("This cannot be undone. To delete the key, type {name} and press Enter:"));
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(|error| CliError::io("cannot read the answer", &error))?;
    if line.trim_end_matches(['\r', '\n']) == name {
        Ok(key)
    } else {
        refused("nothing was deleted: that is not its name")
    }
}
