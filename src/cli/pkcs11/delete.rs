//! `highwater pkcs11 delete`: one key, after a look at which.

use super::{
    KeyArgs,
    list::{describe_key, find_key, key_json, no_key, typed_name},
    target::{TokenTarget, TokenTargetArgs},
};
use crate::{
    cli::{CliError, Exit, output, watch::watched},
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
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Delete {
    pub(super) fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        let selector = self.key.selector();
        let shown = match self.yes {
            true => None,
            false => Some(ask(&target, &selector)?),
        };
        let deleted = watched(move |_| delete(&target, &selector, shown.as_ref()))?;
        if self.target.json {
            let key = deleted.as_ref().map(key_json);
            return output::print(&json!({ "schema": 1, "deleted": true, "key": key }).to_string());
        }
        let what = deleted.map_or("a public key without its private one".to_owned(), |key| describe_key(&key));
        output::print(&format!("deleted\n{what}"))
    }
}

/// Shows the key and has the operator type its name.
fn ask(target: &TokenTarget, selector: &ObjectSelector) -> Result<KeyInfo, CliError> {
    let (there, wanted) = (target.clone(), selector.clone());
    let key = watched(move |_| {
        let token = there.open()?;
        match find_key(&token, &wanted)? {
            Some(key) => Ok(key),
            None => Err(no_key(&token, &wanted)?.into()),
        }
    })?;
    output::note(&format!("on the {}:\n{}\n", target.selector, describe_key(&key)));
    let refused = |text: &str| Err(CliError::new(Exit::Usage, text));
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return refused("nothing was deleted: there is no terminal to ask on, so say --yes if this is the key");
    }
    let name = typed_name(&key);
    output::note(&format!("It is gone for good then. To delete it, type {name} and press Enter:"));
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(|error| CliError::io("cannot read the answer", &error))?;
    match line.trim_end_matches(['\r', '\n']) == name {
        true => Ok(key),
        false => refused("nothing was deleted: that was not its name"),
    }
}

fn delete(
    target: &TokenTarget,
    selector: &ObjectSelector,
    shown: Option<&KeyInfo>,
) -> Result<Option<KeyInfo>, CliError> {
    let token = target.open_for_changes()?;
    let found = find_key(&token, selector)?;
    if shown.is_some() && shown != found.as_ref() {
        return Err(CliError::new(Exit::Io, "nothing was deleted: the key has changed since it was shown"));
    }
    token.delete(selector)?;
    Ok(found)
}
