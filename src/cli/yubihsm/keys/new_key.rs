//! `highwater yubihsm keys generate`, and what every new key is reported with.

use super::{
    super::{
        ObjectId,
        target::{DeviceTarget, DeviceTargetArgs, usage},
    },
    birth, hex_of, key_json, leaves,
};
use crate::{
    cli::{CliError, Exit, output, softsign::KeyKind},
    config::{KeyFormat, KeyRole},
    keyring::format,
    provision::yubihsm::{
        admin_session::{AdminSession, LABEL_MAX_BYTES, Made, NewKey},
        backup,
        words::WRAP_KEY,
    },
    record::utc,
};
use clap::Args;
use highwater_core::consensus::{ChainId, PublicKey};
use serde_json::json;
use std::{fs, path::Path, path::PathBuf, str::FromStr};

/// Stands for the chain where none is named. The configuration says that there is no such chain.
const CHAIN_PLACEHOLDER: &str = "CHAIN-ID";

#[derive(Args, Debug)]
pub(in crate::cli) struct Generate {
    #[command(flatten)]
    target: DeviceTargetArgs,
    #[command(flatten)]
    new: NewArgs,
    /// Show the key in bech32 with this prefix, and begin its label with it
    #[arg(short, long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Ed25519 for consensus, secp256k1 for account
    #[arg(short = 't', long = "type", value_enum, default_value_t = KeyKind::Consensus)]
    kind: KeyKind,
    /// Write an encrypted backup to this new file
    #[arg(short, long, value_name = "FILE", conflicts_with = "non_exportable")]
    backup: Option<PathBuf>,
    /// The wrap key that encrypts the backup
    #[arg(short, long, value_name = "ID", default_value_t = ObjectId(WRAP_KEY))]
    wrapkey: ObjectId,
    /// The new key's object id, not yet taken
    #[arg(value_name = "ID")]
    id: ObjectId,
}

/// What a new key is.
#[derive(Args, Debug)]
pub(super) struct NewArgs {
    /// Its label [default: consensus: or account: and the time]
    #[arg(short, long, value_name = "TEXT")]
    pub(super) label: Option<Label>,
    /// It never leaves the device: there can be no backup of it
    #[arg(long)]
    pub(super) non_exportable: bool,
    /// The chain that it will sign for
    #[arg(long, value_name = "CHAIN")]
    pub(super) chain: Option<String>,
}

/// A label that fits into a device.
#[derive(Clone, Debug)]
pub(super) struct Label(pub(super) String);

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = text.len() <= LABEL_MAX_BYTES && !text.contains(char::is_control);
        fits.then(|| Self(text.to_owned()))
            .ok_or_else(|| format!("expected at most {LABEL_MAX_BYTES} bytes of text without control characters"))
    }
}

impl Generate {
    pub(super) fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        let chain = self.new.chain(&target)?;
        self.backup.as_deref().map_or(Ok(()), refuse_existing)?;
        let role = KeyRole::from(self.kind);
        let new = self.new.new_key(self.id, role, self.prefix.as_deref())?;
        let session = target.open()?;
        let made = session.generate(&new).map_err(|error| target.error(&error))?;
        let key_format = self.prefix.as_ref().map(|prefix| KeyFormat::Bech32 {
            account_key_prefix: prefix.clone(),
            consensus_key_prefix: prefix.clone(),
        });
        let report = KeyReport { done: "generated", target: &target, chain, key_format, role, made: &made };
        report.print(self.target.json())?;
        let Some(path) = &self.backup else { return Ok(()) };
        back_up(&session, &target, self.id, self.wrapkey, path).map_err(|error| {
            let text = format!("key {} is there and good, and has no backup: {}", self.id, error.message);
            CliError::new(error.exit, text)
        })?;
        output::note(&format!("wrote {}, encrypted by wrap key {}", path.display(), self.wrapkey));
        Ok(())
    }
}

impl NewArgs {
    /// The chain that the key is for: the named one, or the only one there is.
    pub(super) fn chain(&self, target: &DeviceTarget) -> Result<Option<ChainId>, CliError> {
        let named = self.chain.as_deref().map(ChainId::new).transpose();
        let named = named.map_err(|error| usage(error.to_string()))?;
        let known = target.chain(named.as_ref())?.map(|chain| chain.id.clone());
        Ok(known.or(named))
    }

    pub(super) fn new_key(&self, id: ObjectId, role: KeyRole, prefix: Option<&str>) -> Result<NewKey, CliError> {
        let label = match (&self.label, prefix) {
            (Some(label), _) => label.clone(),
            (None, Some(prefix)) => format!("{prefix}:{}", utc::now()).parse().map_err(usage)?,
            (None, None) => Label(format!("{role}:{}", utc::now())),
        };
        Ok(NewKey { id: id.0, label: label.0, role, exportable: !self.non_exportable })
    }
}

/// What an operator is told of a new key.
pub(super) struct KeyReport<'a> {
    /// What was done.
    pub(super) done: &'a str,
    /// On which device.
    pub(super) target: &'a DeviceTarget,
    /// The chain that the key is for.
    pub(super) chain: Option<ChainId>,
    /// How to show it, if not as its chain does.
    pub(super) key_format: Option<KeyFormat>,
    /// What it is for.
    pub(super) role: KeyRole,
    /// The key.
    pub(super) made: &'a Made,
}

impl KeyReport<'_> {
    /// Prints the key and what to paste.
    pub(super) fn print(&self, as_json: bool) -> Result<(), CliError> {
        let Made { info, public_key, signed } = self.made;
        let shown = self.shown(public_key)?;
        let entry = entry(self.chain.as_ref(), info.id, self.role);
        if as_json {
            let mut value = key_json(info);
            value["schema"] = json!(1);
            value["done"] = json!(self.done);
            value["proven"] = json!(signed);
            value["chain_id"] = json!(self.chain.as_ref().map(ChainId::as_str));
            value["key"] = json!(shown);
            value["entry"] = json!(entry);
            value["section_line"] = json!(self.target.provider.line);
            output::print(&value.to_string())?;
        } else {
            let proof = if *signed { ", and its signature over the self-test verifies" } else { "" };
            output::print(&format!(
                "{}{proof}\nid       0x{:04x}\nlabel    {:?}\ntype     {}\nkey      {shown}\naddress  {}\nborn     {}\n\
                 leaves   {}\n\nIn {}, put this into `keys` of the [[providers.yubihsm]] on line {}:\n\n{entry}",
                self.done,
                info.id,
                info.label,
                public_key.key_type(),
                public_key.address_hex(),
                birth(info.birth),
                leaves(info.exportable),
                self.target.config.path.display(),
                self.target.provider.line,
            ))?;
        }
        if !signed {
            output::note(&format!(
                "it has not signed yet, because authentication key {} may not sign: run `highwater yubihsm test 0x{:04x}` \
                 with the validator's",
                self.target.provider.auth_key, info.id
            ));
        }
        Ok(())
    }

    fn shown(&self, public_key: &PublicKey) -> Result<String, CliError> {
        let of_chain = self.target.chain(self.chain.as_ref())?.map(|chain| &chain.key_format);
        Ok(match self.key_format.as_ref().or(of_chain) {
            Some(key_format) => format::show(key_format, public_key, self.role),
            None => hex_of(&public_key.to_bytes()),
        })
    }
}

/// The entry of `keys` for a key.
fn entry(chain: Option<&ChainId>, id: u16, role: KeyRole) -> String {
    let chain = chain.map_or(CHAIN_PLACEHOLDER, ChainId::as_str);
    // What JSON escapes, TOML reads in the same way.
    let chain = serde_json::Value::from(chain);
    format!("    {{ chain_ids = [{chain}], key = {id}, type = \"{role}\" }},")
}

/// Refuses a file that is there already, before the device is asked for anything.
pub(in crate::cli::yubihsm) fn refuse_existing(path: &Path) -> Result<(), CliError> {
    match fs::symlink_metadata(path) {
        Ok(_) => {
            let text = format!("{} exists already and is not overwritten: name a new file", path.display());
            Err(CliError::new(Exit::CantCreate, text))
        }
        Err(_) => Ok(()),
    }
}

/// Writes an encrypted backup.
pub(super) fn back_up(
    session: &AdminSession,
    target: &DeviceTarget,
    id: ObjectId,
    wrap_key: ObjectId,
    path: &Path,
) -> Result<(), CliError> {
    let wrapped = session.export(id.0, wrap_key.0).map_err(|error| target.error(&error))?;
    backup::write(path, &wrapped).map_err(CliError::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_pasted_is_an_entry_of_the_configuration() {
        let chain = ChainId::new("test-1").unwrap();
        for role in [KeyRole::Account, KeyRole::Consensus] {
            let text = format!(
                "[[chain]]\nid = \"test-1\"\nkey_format = {{ type = \"hex\" }}\n\
                 [[validator]]\naddr = \"unix:///a\"\nchain_id = \"test-1\"\n\
                 [[providers.yubihsm]]\nadapter = {{ type = \"http\", addr = \"tcp://127.0.0.1:1\" }}\n\
                 auth = {{ key = 4, password_file = \"a\" }}\nkeys = [\n{}\n]\n",
                entry(Some(&chain), 258, role)
            );
            let (config, _) = Config::parse(Path::new("tmkms.toml"), &text).unwrap();
            let key = &config.yubihsm[0].keys[0];
            assert_eq!((key.id, key.role, key.chain_ids.as_slice()), (258, role, std::slice::from_ref(&chain)));
        }
    }

    #[test]
    fn labels_are_those_that_fit_into_a_device() {
        for good in ["", "a key", &"a".repeat(40)] {
            assert!(good.parse::<Label>().is_ok(), "{good}");
        }
        for bad in ["a\nb", &"a".repeat(41)] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }
}
