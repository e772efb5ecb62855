//! What a module gets of the signer's environment, and what of its files it never does.

use super::spec::TokenSpec;
use crate::config::{Config, NodeAddress, PasswordSource, PinSource};
use highwater_core::disk;
use std::{env, path::PathBuf};

/// Where systemd puts the secrets of a service.
pub const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// What no module may reach: state, keys, PINs and passwords, credentials, configuration, audit, control socket.
pub fn of_the_signer(config: &Config) -> Vec<PathBuf> {
    let mut never = vec![config.path.clone()];
    for chain in &config.chains {
        never.extend([chain.state_file.clone(), chain.watermark()]);
    }
    never.extend(config.softsign.iter().map(|key| key.path.clone()));
    never.extend(config.validators.iter().filter_map(|validator| match &validator.address {
        NodeAddress::Tcp { identity_key, .. } => Some(identity_key.clone()),
        NodeAddress::Unix { .. } => None,
    }));
    never.extend(config.pkcs11.iter().filter_map(|provider| match &provider.pin {
        Some(PinSource::File(path)) => Some(path.clone()),
        _ => None,
    }));
    never.extend(config.yubihsm.iter().filter_map(|provider| match &provider.password {
        PasswordSource::File(path) => Some(path.clone()),
        _ => None,
    }));
    if let Some(audit) = &config.highwater.audit {
        never.push(audit.clone());
        // What was rotated is evidence too.
        never.extend(
            (1..=config.highwater.audit_limits.keep).map(|number| disk::with_suffix(audit, &format!(".{number}"))),
        );
    }
    never.push(config.control_socket());
    never.extend(env::var_os(CREDENTIALS_VARIABLE).map(PathBuf::from));
    never
}

/// The environment variables that a module gets, if they are set. `secret` hold PINs.
pub fn variables<'a>(spec: &'a TokenSpec, secret: &'a [String]) -> impl Iterator<Item = &'a str> {
    let of_profile = spec.profile.module.environment.iter().map(|variable| &variable.name);
    let names = of_profile.chain(&spec.environment);
    names.filter(|name| *name != CREDENTIALS_VARIABLE && !secret.contains(name)).map(String::as_str)
}
