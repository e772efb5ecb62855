//! `highwater yubihsm keys list`.

use super::{
    super::target::{DeviceTarget, DeviceTargetArgs, device_error},
    birth, hex_of, key_json, leaves,
};
use crate::{
    cli::{CliError, output},
    config::KeyRole,
    keyring::format,
    provision::yubihsm::admin_session::DeviceKeyInfo,
};
use clap::Args;
use highwater_core::consensus::PublicKey;
use serde_json::json;

#[derive(Args, Debug)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    target: DeviceTargetArgs,
}

impl List {
    pub(super) fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        let session = target.open()?;
        let failed = |trouble| device_error(&target.provider, &trouble);
        let serial = session.serial_number().map_err(failed)?;
        let keys = session.keys().map_err(failed)?;
        output::print(&match self.target.json() {
            true => {
                let keys: Vec<_> = keys.iter().map(key_json).collect();
                json!({ "schema": 1, "serial": serial, "keys": keys }).to_string()
            }
            false if keys.is_empty() => format!("no keys in YubiHSM {serial}"),
            false => keys.iter().map(|key| describe(&target, key)).collect::<Vec<_>>().join("\n\n"),
        })
    }
}

fn describe(target: &DeviceTarget, key: &DeviceKeyInfo) -> String {
    let unknown = || "unknown".to_owned();
    let domains: Vec<_> = key.domains.iter().map(u8::to_string).collect();
    format!(
        "id       0x{:04x}\nlabel    {:?}\ntype     {}\nkey      {}\naddress  {}\nborn     {}\nleaves   {}\ndomains  {}",
        key.id,
        key.label,
        key.key_type.map_or(key.algorithm.as_str(), |kind| kind.name()),
        key.public_key.map_or_else(unknown, |public| as_configured(target, key.id, &public)),
        key.public_key.map_or_else(unknown, |public| public.address_hex()),
        birth(key.birth),
        leaves(key.exportable),
        domains.join(", "),
    )
}

/// As the only chain that the key signs for shows its keys.
fn as_configured(target: &DeviceTarget, id: u16, public: &PublicKey) -> String {
    let mut uses = target.provider.keys.iter().filter(|key| key.id == id);
    let chain = match (uses.next(), uses.next()) {
        (Some(only), None) if only.chain_ids.len() == 1 => {
            let chain = target.config.chains.iter().find(|chain| chain.id == only.chain_ids[0]);
            chain.map(|chain| (chain, only.role))
        }
        _ => None,
    };
    let shown = chain.filter(|(_, role): &(_, KeyRole)| role.key_type() == public.key_type());
    shown.map_or_else(|| hex_of(&public.to_bytes()), |(chain, role)| format::show(&chain.key_format, public, role))
}
