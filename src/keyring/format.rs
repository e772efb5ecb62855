//! How a chain writes its public keys. For people and their tools; nothing here is read back.

use crate::config::{KeyFormat, KeyRole};
use highwater_core::consensus::{KeyType, PublicKey};
use subtle_encoding::{base64, bech32, hex};

/// Amino's mark of an Ed25519 public key: four bytes of type hash and the length 32.
const AMINO_ED25519: [u8; 5] = [0x16, 0x24, 0xDE, 0x64, 0x20];
/// Amino's mark of a secp256k1 public key: four bytes of type hash and the length 33.
const AMINO_SECP256K1: [u8; 5] = [0xEB, 0x5A, 0xE9, 0x87, 0x21];

/// `key` as tmkms shows it for a chain with this `key_format`. In bech32 an account key is shown as its address.
pub fn show(format: &KeyFormat, key: &PublicKey, role: KeyRole) -> String {
    match (format, role) {
        (KeyFormat::Bech32 { account_key_prefix, .. }, KeyRole::Account) => {
            bech32::encode(account_key_prefix, key.address())
        }
        (KeyFormat::Bech32 { consensus_key_prefix, .. }, KeyRole::Consensus) => {
            bech32::encode(consensus_key_prefix, amino(key))
        }
        (KeyFormat::CosmosJson, _) => cosmos_json(key),
        (KeyFormat::Hex, _) => text(hex::encode_upper(key.to_bytes())),
    }
}

/// The key as Amino, Cosmos' former encoding, writes it.
fn amino(key: &PublicKey) -> Vec<u8> {
    let prefix = match key.key_type() {
        KeyType::Ed25519 => AMINO_ED25519,
        KeyType::Secp256k1 => AMINO_SECP256K1,
    };
    [&prefix[..], &key.to_bytes()].concat()
}

/// The key as `create-validator` and other Cosmos SDK commands take it.
fn cosmos_json(key: &PublicKey) -> String {
    let value = text(base64::encode(key.to_bytes()));
    format!(r#"{{"@type":"/cosmos.crypto.{}.PubKey","key":"{value}"}}"#, key.key_type())
}

fn text(ascii: Vec<u8>) -> String {
    String::from_utf8(ascii).expect("base64 and hex are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

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

    // Shown by tmkms itself (its README.yubihsm.md).
    #[test]
    fn consensus_keys_in_bech32_are_those_of_tmkms() {
        let shown = "cosmosvalconspub1zcjduepqtvzxa733n7dhrjf247n0jtdwsvvsd4jgqvzexj5tkwerpzy5sugsvmfja3";
        let key = key(KeyType::Ed25519, "5b046efa319f9b71c92aafa6f92dae831906d6480305934a8bb3b23088948711");
        assert_eq!(show(&bech32_format(), &key, KeyRole::Consensus), shown);
    }

    #[test]
    fn every_format_shows_both_kinds_of_key() {
        let (bech32, json, hex) = (bech32_format(), KeyFormat::CosmosJson, KeyFormat::Hex);
        let (consensus, account) = (KeyRole::Consensus, KeyRole::Account);
        let cases = [
            (
                &bech32,
                ed25519(),
                consensus,
                "cosmosvalconspub1zcjduepqy9f035vm0ywjg3fjgts47t4tdjmul7nmdf0dxqyhjc8qdxypmvfqz3tnu8",
            ),
            (
                &bech32,
                secp256k1(),
                consensus,
                "cosmosvalconspub1addwnpepqvjx204vgdzgsqpvcp4mldl3plscny0rt707gvpdh6ndydfacz43clq7lgm",
            ),
            (&bech32, secp256k1(), account, "cosmos1znd5zwx4dghvlvggsx5muw2dnuepnpdjzqghmw"),
            (
                &json,
                ed25519(),
                consensus,
                r#"{"@type":"/cosmos.crypto.ed25519.PubKey","key":"IVL40Zt5HSRFMkLhXy6rbLfP+ntqXtMAl5YOBpiB2xI="}"#,
            ),
            (
                &json,
                secp256k1(),
                account,
                r#"{"@type":"/cosmos.crypto.secp256k1.PubKey","key":"AyRlPqxDRIgALMBrv7fxD+GJkeNfn+QwLb6m0jU9wKsc"}"#,
            ),
            (&hex, ed25519(), consensus, "2152F8D19B791D24453242E15F2EAB6CB7CFFA7B6A5ED30097960E069881DB12"),
            (&hex, secp256k1(), account, "0324653EAC434488002CC06BBFB7F10FE18991E35F9FE4302DBEA6D2353DC0AB1C"),
        ];
        for (format, key, role, expected) in cases {
            assert_eq!(show(format, &key, role), expected);
        }
    }
}
