//! Formats public keys as a chain shows them. For people and their tools; Highwater never reads them back.

use crate::config::KeyFormat;
use highwater_core::consensus::{Bech32, PublicKey};
use subtle_encoding::{base64, bech32, hex};

/// `key` as tmkms shows it for a chain with this `key_format`.
pub fn show(format: &KeyFormat, key: &PublicKey) -> String {
    match format {
        KeyFormat::Bech32 { account_key_prefix, consensus_key_prefix } => match key.key_type().algorithm().bech32 {
            Bech32::Address => bech32::encode(account_key_prefix, key.address()),
            // Amino is Cosmos's former encoding.
            Bech32::Amino(mark) => bech32::encode(consensus_key_prefix, [&mark[..], key.as_bytes()].concat()),
        },
        KeyFormat::CosmosJson => cosmos_json(key),
        KeyFormat::Hex => text(hex::encode_upper(key.as_bytes())),
    }
}

/// The key in the form that `create-validator` and other Cosmos SDK commands accept.
fn cosmos_json(key: &PublicKey) -> String {
    let (sdk_type, value) = (key.key_type().algorithm().sdk_type, text(base64::encode(key.as_bytes())));
    format!(r#"{{"@type":"{sdk_type}","key":"{value}"}}"#)
}

fn text(ascii: Vec<u8>) -> String {
    String::from_utf8(ascii).expect("base64 and hex are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_core::consensus::KeyType;

    fn key(key_type: KeyType, text: &str) -> PublicKey {
        PublicKey::from_bytes(key_type, &hex::decode(text).unwrap()).unwrap()
    }

    fn ed25519() -> PublicKey {
        key(KeyType::Ed25519, "2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12")
    }

    fn secp256k1() -> PublicKey {
        key(KeyType::Secp256k1, "0324653eac434488002cc06bbfb7f10fe18991e35f9fe4302dbea6d2353dc0ab1c")
    }

    fn bech32_format() -> KeyFormat {
        KeyFormat::Bech32 { account_key_prefix: "cosmos".into(), consensus_key_prefix: "cosmosvalconspub".into() }
    }

    // From tmkms's README.yubihsm.md.
    #[test]
    fn consensus_keys_in_bech32_are_those_of_tmkms() {
        let shown = "cosmosvalconspub1zcjduepqtvzxa733n7dhrjf247n0jtdwsvvsd4jgqvzexj5tkwerpzy5sugsvmfja3";
        let key = key(KeyType::Ed25519, "5b046efa319f9b71c92aafa6f92dae831906d6480305934a8bb3b23088948711");
        assert_eq!(show(&bech32_format(), &key), shown);
    }

    #[test]
    fn every_format_shows_both_kinds_of_key() {
        let (bech32, json, hex) = (bech32_format(), KeyFormat::CosmosJson, KeyFormat::Hex);
        let cases = [
            (&bech32, ed25519(), "cosmosvalconspub1zcjduepqy9f035vm0ywjg3fjgts47t4tdjmul7nmdf0dxqyhjc8qdxypmvfqz3tnu8"),
            (&bech32, secp256k1(), "cosmos1znd5zwx4dghvlvggsx5muw2dnuepnpdjzqghmw"),
            (
                &json,
                ed25519(),
                r#"{"@type":"/cosmos.crypto.ed25519.PubKey","key":"IVL40Zt5HSRFMkLhXy6rbLfP+ntqXtMAl5YOBpiB2xI="}"#,
            ),
            (
                &json,
                secp256k1(),
                r#"{"@type":"/cosmos.crypto.secp256k1.PubKey","key":"AyRlPqxDRIgALMBrv7fxD+GJkeNfn+QwLb6m0jU9wKsc"}"#,
            ),
            (&hex, ed25519(), "2152F8D19B791D24453242E15F2EAB6CB7CFFA7B6A5ED30097960E069881DB12"),
            (&hex, secp256k1(), "0324653EAC434488002CC06BBFB7F10FE18991E35F9FE4302DBEA6D2353DC0AB1C"),
        ];
        for (format, key, expected) in cases {
            assert_eq!(show(format, &key), expected);
        }
    }
}
