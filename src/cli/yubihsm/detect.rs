//! `highwater yubihsm detect`: which devices are there.

use super::target::{DeviceArgs, device_error, refuse_running};
use crate::{
    cli::{CliError, output},
    config::{YubiHsmAdapter, YubiHsmConfig},
    keyring::{
        device::Trouble,
        yubihsm::{client::DeviceInfo, connector::ConnectorStatus, login::Login},
    },
    process::resolver::Resolver,
    provision::yubihsm::admin_session::PATIENCE,
};
use clap::Args;
use serde_json::{Value, json};
use std::time::Instant;

#[derive(Args, Debug)]
pub(in crate::cli) struct Detect {
    #[command(flatten)]
    device: DeviceArgs,
}

/// What was found of one section.
struct Found {
    connector: Option<ConnectorStatus>,
    info: DeviceInfo,
}

impl Detect {
    pub(super) fn run(self) -> Result<(), CliError> {
        let config = self.device.load()?;
        let providers = self.device.providers(&config)?;
        for provider in &providers {
            // Whoever looks at one device on USB resets all of them. A connector may be asked at any time.
            if let YubiHsmAdapter::Usb { .. } = provider.adapter {
                refuse_running(&config, provider)?;
            }
        }
        let found: Vec<_> = providers.iter().map(|provider| (*provider, look(provider))).collect();
        let answer = match self.device.json {
            true => {
                let devices: Vec<_> = found.iter().map(|(provider, found)| as_json(provider, found)).collect();
                json!({ "schema": 1, "devices": devices }).to_string()
            }
            false => {
                let texts: Vec<_> = found.iter().map(|(provider, found)| as_text(provider, found)).collect();
                texts.join("\n\n")
            }
        };
        output::print(&answer)?;
        let failed = found.iter().find_map(|(provider, found)| Some((provider, found.as_ref().err()?)));
        failed.map_or(Ok(()), |(provider, trouble)| Err(device_error(provider, trouble)))
    }
}

/// Opens no session.
fn look(provider: &YubiHsmConfig) -> Result<Found, Trouble> {
    let login = Login::new(provider.clone(), Resolver::default());
    let connector = login.connector_status(Instant::now() + PATIENCE)?;
    if let Some(ConnectorStatus { status, .. }) = &connector
        && status != "OK"
    {
        let text = format!("its connector runs and says {status}: is the device plugged in?");
        return Err(Trouble::Broken(text.into()));
    }
    let info = login.device_info(Instant::now() + PATIENCE)?;
    if provider.serial_number.as_ref().is_some_and(|expected| *expected != info.serial_number) {
        let text = format!("the device there has the serial number {}", info.serial_number);
        return Err(Trouble::Broken(text.into()));
    }
    Ok(Found { connector, info })
}

fn as_text(provider: &YubiHsmConfig, found: &Result<Found, Trouble>) -> String {
    match found {
        Err(trouble) => format!("device     {provider}\nnot there  {}", trouble.text()),
        Ok(Found { connector, info }) => {
            let (used, size) = info.log;
            let version = version_of(info);
            let connector = connector.as_ref().map_or_else(
                || "none, on USB".to_owned(),
                |ConnectorStatus { status, version }| format!("{version}, {status}"),
            );
            format!(
                "device     {provider}\nserial     {}\nfirmware   {version}\nlog        {used} of {size} entries used\n\
                 connector  {connector}",
                info.serial_number
            )
        }
    }
}

fn as_json(provider: &YubiHsmConfig, found: &Result<Found, Trouble>) -> Value {
    let mut value = json!({ "device": provider.to_string(), "line": provider.line });
    match found {
        Err(trouble) => value["error"] = json!(trouble.text()),
        Ok(Found { connector, info }) => {
            value["serial"] = json!(info.serial_number);
            value["firmware"] = json!(version_of(info));
            value["log_used"] = json!(info.log.0);
            value["log_size"] = json!(info.log.1);
            value["connector"] = json!(connector.as_ref().map(|connector| &connector.version));
        }
    }
    value
}

fn version_of(info: &DeviceInfo) -> String {
    let [major, minor, patch] = info.version;
    format!("{major}.{minor}.{patch}")
}
