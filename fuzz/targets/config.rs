//! Any text is a configuration or a list of findings with lines.
#![no_main]

use highwater::config::{Config, ConfigError};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    match Config::parse(Path::new("tmkms.toml"), text) {
        Ok((config, _)) => {
            assert!(!config.validators.is_empty());
            for validator in &config.validators {
                assert!(config.chain(&validator.chain_id).is_some());
                assert!(config.consensus_key(&validator.chain_id).is_some());
            }
        }
        Err(ConfigError::Invalid { findings, .. }) => assert!(!findings.is_empty()),
        Err(error) => panic!("{error}"),
    }
});
