//! Any text is an HSM profile or a list of findings with lines; what is one reaches the child process unchanged.
#![no_main]

#[path = "../support/hidden_file.rs"]
mod hidden_file;

use hidden_file::HiddenFile;
use highwater::config::pkcs11::{profile::Profile, profile_reader::ProfileError};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static FILE: LazyLock<HiddenFile> = LazyLock::new(HiddenFile::new);

fn load(text: &str) -> Result<Profile, ProfileError> {
    Profile::load(&FILE.holding(text.as_bytes()))
}

fuzz_target!(|text: &str| {
    match load(text) {
        Ok(profile) => {
            assert!(!profile.name.is_empty() && !profile.sources.is_empty());
            assert!(!profile.ed25519.numbers.is_empty() && !profile.ed25519.ec_params.is_empty());
            assert!(profile.module.paths.iter().all(|path| path.is_absolute()));
            let sent = serde_json::to_string(&profile).expect("a profile has a JSON form");
            assert_eq!(serde_json::from_str::<Profile>(&sent).expect("its own form"), profile);
            assert_eq!(load(&format!("{text}\n# the end\n")).expect("a comment changes nothing"), profile);
        }
        Err(ProfileError::Invalid { findings, .. }) => {
            assert!(!findings.is_empty());
            let lines = text.lines().count() + 1;
            assert!(findings.iter().all(|finding| finding.line <= lines && !finding.text.is_empty()));
        }
        Err(error) => panic!("{error}"),
    }
});
