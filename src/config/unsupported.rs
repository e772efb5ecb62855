//! Providers of `tmkms.toml` that this build cannot sign with.
//!
//! They are read to the last key, so that a typing mistake in them is found too, and then each entry is an error.

use super::{
    KeyRole,
    providers::{KeyHome, key_role},
    reader::{ConfigFindings, Table, Value},
    sections::Draft,
};

impl Draft {
    /// Checks every provider that this build has no driver for.
    pub(super) fn unsupported_providers(&mut self, table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) {
        if let Some(value) = table.get("ledgertm", findings) {
            self.unsupported(value, "[[providers.ledgertm]]", findings, Self::check_ledger);
        }
        if let Some(value) = table.get("fortanixdsm", findings) {
            self.unsupported(value, "[[providers.fortanixdsm]]", findings, Self::check_fortanix);
        }
    }

    fn unsupported<'t>(
        &mut self,
        value: Value<'t>,
        name: &'static str,
        findings: &mut ConfigFindings<'_>,
        body: fn(&mut Self, &mut Table<'t>, &mut ConfigFindings<'_>),
    ) {
        value.tables(name, findings, |table, findings| {
            let text = format!(
                "this build of Highwater does not support {name} yet: remove the section, or keep using the present \
                 signer for its chains"
            );
            findings.error(table.line(), text);
            body(self, table, findings);
            Some(())
        });
    }

    fn check_ledger(&mut self, table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) {
        self.chains_of_key(table, Some(KeyRole::Consensus), KeyHome::Unsupported, findings);
    }

    fn check_fortanix(&mut self, table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) {
        for (key, meaning) in
            [("api_endpoint", "the service's https:// address"), ("api_key", "the key for the service")]
        {
            if let Some(value) = table.require(key, meaning, findings) {
                value.string(findings);
            }
        }
        if let Some(value) = table.get("signing_keys", findings) {
            value.tables("[[providers.fortanixdsm.signing_keys]]", findings, |table, findings| {
                let role = key_role(table, findings);
                self.chains_of_key(table, role, KeyHome::Unsupported, findings);
                table.exactly_one(["key_id", "key_name"], findings)?.string(findings)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{GOOD, assert_one_error, errors, good_with};

    const LEDGER: &str = "\n[[providers.ledgertm]]\nchain_ids = [\"test-1\"]\n";
    const FORTANIX: &str = r#"
[[providers.fortanixdsm]]
api_endpoint = "https://dsm.example.com"
api_key = "hunter2"
signing_keys = [
    { chain_ids = ["test-1"], type = "consensus", key_name = "validator" },
    { chain_ids = [], type = "account", key_id = "72e9ed9e-9eb4-46bd-a135-e78ed9bfd611" },
]
"#;
    /// The line on which a section added to `GOOD` begins.
    const SECTION: usize = 14;

    #[test]
    fn each_unsupported_provider_is_one_error_beside_the_others() {
        for (section, name) in [(LEDGER, "ledgertm"), (FORTANIX, "fortanixdsm")] {
            let words = format!("does not support [[providers.{name}]] yet: remove the section, or keep using");
            assert_one_error(&format!("{GOOD}{section}"), SECTION, &[&words]);
            let with_typo = good_with("addr", "timeuot = 1\naddr") + section;
            assert_eq!(errors(&with_typo).len(), 2, "other findings are still reported");
            let twice = format!("{GOOD}{section}{section}");
            assert_eq!(errors(&twice).len(), 2, "one for each entry");
        }
    }

    #[test]
    fn a_chain_whose_only_key_is_in_an_unsupported_provider_has_a_key() {
        let without_key = &GOOD[..GOOD.find("[[providers").unwrap()];
        for section in [LEDGER, FORTANIX] {
            assert_one_error(&format!("{without_key}{section}"), 11, &["does not support"]);
        }
    }

    #[test]
    fn mistakes_in_unsupported_providers_are_found_and_show_no_secret() {
        for (section, old, new, line, text) in [
            (LEDGER, "chain_ids", "chains", 15, "did you mean `chain_ids`?"),
            (FORTANIX, "\"hunter2\"", "{ key = \"hunter2\" }", 16, "`api_key` in [[providers.fortanixdsm]]: expected"),
            (FORTANIX, "api_key =", "apikey =", 16, "did you mean `api_key`?"),
            (FORTANIX, ", key_name = \"validator\"", "", 18, "needs either `key_id` or `key_name`"),
        ] {
            let result = errors(&format!("{GOOD}{}", section.replacen(old, new, 1)));
            let expected = format!("f:{line}: ");
            let found = result.iter().any(|error| error.starts_with(&expected) && error.contains(text));
            assert!(found, "{expected}{text} is in {result:#?}");
            assert!(result.iter().any(|error| error.contains("does not support")), "{result:#?}");
            assert!(result.iter().all(|error| !error.contains("hunter2")), "{result:#?}");
        }
    }
}
