//! Any text is a configuration or a list of findings with lines; what is one stays the same one under a comment.
#![no_main]

use highwater::config::{Config, ConfigError, ConfigFinding, KeyRole};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fn parse(text: &str) -> Result<(Config, Vec<ConfigFinding>), ConfigError> {
    Config::parse(Path::new("tmkms.toml"), text)
}

fuzz_target!(|text: &str| {
    let lines = text.lines().count() + 1;
    match parse(text) {
        Ok((config, warnings)) => {
            assert!(warnings.iter().all(|warning| warning.line <= lines));
            assert!(!config.validators.is_empty());
            for validator in &config.validators {
                assert!(config.chain(&validator.chain_id).is_some());
                let key = config.consensus_key(&validator.chain_id).unwrap();
                assert!(key.chain_ids().contains(&validator.chain_id));
                let of_chain = config.keys().filter(|key| key.chain_ids().contains(&validator.chain_id));
                let best = of_chain.filter(|key| key.role() == KeyRole::Consensus).count();
                assert_eq!(best, usize::from(key.role() == KeyRole::Consensus));
            }
            let again = parse(&format!("{text}\n# the end\n")).expect("a comment changes nothing");
            assert_eq!(format!("{again:?}"), format!("{:?}", (config, warnings)));
        }
        Err(ConfigError::Invalid { findings, .. }) => {
            assert!(!findings.is_empty());
            assert!(findings.iter().all(|finding| finding.line <= lines && !finding.text.is_empty()));
        }
        Err(error) => panic!("{error}"),
    }
});
