//! What a device's setup derives from 24 words: the passwords of its authentication keys and its wrap key. Pure.
//!
//! Matches tmkms byte for byte, so that its words restore a device here and ours restore one there. The words are those of
//! BIP 39, but the derivation starts from their 32 bytes of entropy (HKD32), not from BIP 39's seed.

use crate::keyring::Secret;
use hkd32::{
    KeyMaterial, PathBuf,
    mnemonic::{Language, Phrase},
};
use hkdf::Hkdf;
use sha2::Sha512;
use std::fmt;
use subtle_encoding::{bech32, hex};
use yubihsm::{Capability, Domain};
use zeroize::Zeroizing;

/// Words in a phrase, for 256 bits.
pub(crate) const WORDS: usize = 24;
/// Object id of the administrator's authentication key; a device from the factory has one with the same id.
pub(crate) const ADMIN_KEY: u16 = 1;
/// Object id of the wrap key.
pub(crate) const WRAP_KEY: u16 = 1;
/// Words in BIP 39's list.
const LIST_WORDS: u16 = 2048;
/// The purpose of a phrase, in the words of tmkms.
const PHRASE_INFO: &[u8] = b"yubihsm setup BIP39 derivation";
/// How many bytes of a derived key go into a password: the device's AES keys have no more.
const PASSWORD_BYTES: usize = 16;

/// The 24 words that everything else is derived from.
pub(crate) struct Words(Phrase);

/// The user of an authentication key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// May do everything.
    Admin,
    /// Reads the log, and turns the audit on and off.
    Auditor,
    /// Makes, imports and backs up keys.
    Operator,
    /// Signs; the signer logs in with it.
    Validator,
}

/// Why words are not a phrase.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WordsError {
    /// All words are on the list, but the checksum is wrong.
    Checksum,
    /// There are not 24.
    Count(usize),
    /// The word at this place, counted from 1, is not on the list.
    Unknown {
        place: usize,
        /// Not a secret: no phrase contains this word.
        word: String,
        /// The most similar word on the list.
        like: Option<String>,
    },
}

impl fmt::Display for WordsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum => f.write_str(
                "each word is on the list, but their checksum is wrong, so at least one word is wrong, or two are swapped",
            ),
            Self::Count(count) => write!(f, "a phrase has {WORDS} words, but this has {count}"),
            Self::Unknown { place, word, like } => {
                write!(f, "word {place}, {word:?}, is not on the BIP 39 list")?;
                like.as_ref().map_or(Ok(()), |like| write!(f, ": did you mean {like:?}?"))
            }
        }
    }
}

impl Words {
    /// Makes words from random numbers of the device and of the system, so that one good source is enough.
    pub(crate) fn generate(of_device: &[u8], of_system: &[u8; 32]) -> Self {
        let input = Zeroizing::new([of_device, of_system].concat());
        let mut entropy = Zeroizing::new([0; hkd32::KEY_SIZE]);
        let derived = Hkdf::<Sha512>::new(None, &input).expand(PHRASE_INFO, &mut entropy[..]);
        derived.expect("32 bytes are fewer than HKDF can give");
        Self(Phrase::from_entropy(*entropy, Language::English))
    }

    /// Reads a phrase. Allows any white space between its words.
    pub(crate) fn parse(text: &str) -> Result<Self, WordsError> {
        let lower = Zeroizing::new(text.to_ascii_lowercase());
        let words = Zeroizing::new(lower.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>());
        if words.len() != WORDS {
            return Err(WordsError::Count(words.len()));
        }
        let phrase = Zeroizing::new(words.join(" "));
        Phrase::new(&*phrase, Language::English).map(Self).map_err(|_| why_not(&words))
    }

    /// The words, separated by single spaces. They are also the administrator's password.
    pub(crate) fn text(&self) -> &str {
        self.0.phrase()
    }

    /// The password of a role's authentication key.
    pub(crate) fn password(&self, role: Role) -> Zeroizing<String> {
        match role {
            Role::Admin => Zeroizing::new(self.text().to_owned()),
            _ => {
                let key = self.derive(&format!("/1/role/{}", role.name()));
                let prefix = format!("kms-{}-password-", role.name());
                Zeroizing::new(bech32::encode(prefix, &key[..PASSWORD_BYTES]))
            }
        }
    }

    /// The wrap key with the object id [`WRAP_KEY`], for AES-256-CCM.
    pub(crate) fn wrap_key(&self) -> Secret<32> {
        self.derive(&format!("/1/wrap/0x{WRAP_KEY:04x}"))
    }

    /// The wrap key in hex, as tmkms shows it.
    pub(crate) fn wrap_key_hex(&self) -> Zeroizing<String> {
        let digits = hex::encode(&self.wrap_key()[..]);
        Zeroizing::new(String::from_utf8(digits).expect("hex is ASCII"))
    }

    fn derive(&self, path: &str) -> Secret<32> {
        let path: PathBuf = path.parse().expect("every path here begins with a slash and has no empty part");
        let key = KeyMaterial::new(*self.0.entropy()).derive_subkey(path);
        let bytes = key.as_bytes().try_into().expect("derived keys have 32 bytes");
        Box::new(Zeroizing::new(bytes))
    }
}

/// Finds the mistake in 24 words that are not a phrase.
fn why_not(words: &[String]) -> WordsError {
    let list: Vec<_> = (0..LIST_WORDS).map(list_word).collect();
    let Some(place) = words.iter().position(|word| !list.contains(word)) else { return WordsError::Checksum };
    let word = words[place].clone();
    let near = list.iter().min_by_key(|known| strsim::damerau_levenshtein(known, &word));
    let like = near.filter(|known| strsim::damerau_levenshtein(known, &word) <= 2).cloned();
    WordsError::Unknown { place: place + 1, word, like }
}

/// A word of the list. The library shows only words of phrases, so this is the first word of one.
fn list_word(index: u16) -> String {
    let mut entropy = [0; hkd32::KEY_SIZE];
    // A word has 11 bits.
    entropy[..2].copy_from_slice(&(index << 5).to_be_bytes());
    let phrase = Phrase::from_entropy(entropy, Language::English);
    phrase.phrase().split(' ').next().expect("a phrase has words").to_owned()
}

impl Role {
    /// In the order of their object ids.
    pub(crate) const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Auditor, Self::Validator];

    /// The object id of its authentication key.
    pub(crate) fn key_id(self) -> u16 {
        match self {
            Self::Admin => ADMIN_KEY,
            Self::Operator => 2,
            Self::Auditor => 3,
            Self::Validator => 4,
        }
    }

    /// The name in passwords and labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Auditor => "auditor",
            Self::Operator => "operator",
            Self::Validator => "validator",
        }
    }

    /// What it may do, what the objects that it makes may do, and in which domains. All as in tmkms.
    pub(super) fn rights(self) -> (Capability, Capability, Domain) {
        match self {
            Self::Admin => (Capability::all(), Capability::all(), Domain::all()),
            Self::Auditor => (
                Capability::GET_LOG_ENTRIES | Capability::GET_OPTION | Capability::PUT_OPTION | Capability::GET_OPAQUE,
                Capability::empty(),
                Domain::all(),
            ),
            Self::Operator => (
                Capability::GENERATE_ASYMMETRIC_KEY
                    | Capability::PUT_ASYMMETRIC_KEY
                    | Capability::GENERATE_HMAC_KEY
                    | Capability::PUT_HMAC_KEY
                    | Capability::IMPORT_WRAPPED
                    | Capability::EXPORT_WRAPPED
                    | Capability::GET_OPAQUE
                    | Capability::GET_OPTION
                    | Capability::GET_LOG_ENTRIES
                    | Capability::SIGN_ATTESTATION_CERTIFICATE,
                Capability::all(),
                Domain::all(),
            ),
            Self::Validator => (
                Capability::SIGN_ECDSA
                    | Capability::SIGN_EDDSA
                    | Capability::SIGN_ATTESTATION_CERTIFICATE
                    | Capability::GET_LOG_ENTRIES,
                Capability::empty(),
                Domain::DOM1,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The phrase of the entropy 00, 01, …, 1f.
    const PHRASE: &str = "abandon amount liar amount expire adjust cage candy arch gather drum bullet absurd math era \
                          live bid rhythm alien crouch range attend journey unaware";

    fn vector() -> Words {
        Words(Phrase::from_entropy(std::array::from_fn(|byte| u8::try_from(byte).unwrap()), Language::English))
    }

    // What tmkms 0.15 derives, recomputed without its code.
    #[test]
    fn what_is_derived_is_what_tmkms_derives() {
        let words = vector();
        assert_eq!(words.text(), PHRASE);
        for (role, password) in [
            (Role::Admin, PHRASE),
            (Role::Operator, "kms-operator-password-1ztuhkpagag6tp9tptl9qma2wcuzsvyff"),
            (Role::Auditor, "kms-auditor-password-16zukfrl5lcs4tg9udcvv98fzfsx9zluq"),
            (Role::Validator, "kms-validator-password-168w265r9rr9gjr3wu4j0dtzhkyadyy04"),
        ] {
            assert_eq!(*words.password(role), password);
        }
        assert_eq!(*words.wrap_key_hex(), "b55c675289521f334d544ff62f1860af42d62814a5233a16174faff5d46fbe7e");
    }

    #[test]
    fn words_are_read_back_whatever_is_between_them() {
        let other = Words::generate(&[7; 32], &[8; 32]);
        for text in [PHRASE, other.text()] {
            let spread = format!(" {}\r\n", text.replace(' ', "\n\t").to_uppercase());
            for form in [text, &spread] {
                assert_eq!(Words::parse(form).ok().unwrap().text(), text);
            }
        }
    }

    #[test]
    fn both_sources_of_random_numbers_count() {
        let one = Words::generate(&[7; 32], &[8; 32]);
        for (of_device, of_system) in [([7; 32], [9; 32]), ([6; 32], [8; 32])] {
            assert_ne!(Words::generate(&of_device, &of_system).text(), one.text());
        }
        assert_eq!(Words::generate(&[7; 32], &[8; 32]).text(), one.text());
    }

    #[test]
    fn a_mistake_in_a_phrase_is_named() {
        for (text, words) in [
            (
                PHRASE.replace("gather", "gahter"),
                "word 10, \"gahter\", is not on the BIP 39 list: did you mean \"gather\"?",
            ),
            (PHRASE.replace("unaware", "xyzzyxyzzy"), "word 24, \"xyzzyxyzzy\", is not on the BIP 39 list"),
            (PHRASE.replace("liar", "live"), "their checksum is wrong"),
            (PHRASE.replace(" unaware", ""), "a phrase has 24 words, but this has 23"),
            (format!("{PHRASE} abandon"), "but this has 25"),
            (String::new(), "but this has 0"),
        ] {
            let error = Words::parse(&text).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!((list_word(0), list_word(2047)), ("abandon".into(), "zoo".into()));
    }
}
