//! The commands of a YubiHSM 2 that Highwater uses, as bytes (Yubico, YubiHSM 2 commands).

use super::{
    client::Client,
    codes::{
        DELETE_OBJECT, EXPORT_WRAPPED, GENERATE_ASYMMETRIC_KEY, GET_LOG_ENTRIES, GET_OBJECT_INFO, GET_OPTION,
        GET_PSEUDO_RANDOM, GET_PUBLIC_KEY, IMPORT_WRAPPED, LIST_OBJECTS, PUT_ASYMMETRIC_KEY, PUT_AUTHENTICATION_KEY,
        PUT_OPAQUE, PUT_WRAP_KEY, RESET_DEVICE, SET_LOG_INDEX, SET_OPTION,
    },
};
use crate::keyring::device::Trouble;
use yubihsm::{
    Algorithm, AuditOption, Capability, Domain, asymmetric, authentication,
    object::{LABEL_SIZE, Label, Origin, Type},
    opaque, wrap,
};
use zeroize::Zeroizing;

/// The option that stops a device whose log is full.
const FORCE_AUDIT: u8 = 1;
/// The filter of List Objects for one type.
const OF_TYPE: u8 = 2;

/// What every object is made with.
#[derive(Clone)]
pub(crate) struct NewObject {
    pub(crate) id: u16,
    pub(crate) label: Label,
    pub(crate) domains: Domain,
    pub(crate) capabilities: Capability,
}

/// What a device shows of an object.
#[derive(Clone, Debug)]
pub(crate) struct ObjectInfo {
    pub(crate) capabilities: Capability,
    pub(crate) domains: Domain,
    /// Its number, if the crate knows none of that number.
    pub(crate) algorithm: Result<Algorithm, u8>,
    pub(crate) origin: Option<Origin>,
    pub(crate) label: String,
}

impl NewObject {
    fn bytes(&self, algorithm: u8) -> Vec<u8> {
        let Self { id, label, domains, capabilities } = self;
        let (domains, capabilities) = (domains.bits().to_be_bytes(), capabilities.bits().to_be_bytes());
        [&id.to_be_bytes()[..], &label.0, &domains, &capabilities, &[algorithm]].concat()
    }
}

/// `what` is what is asked for, in words that follow "it refused to".
impl Client {
    /// The ids of all objects of a type that the authentication key may see.
    pub(crate) fn list(&self, what: &str, kind: Type) -> Result<Vec<u16>, Trouble> {
        let answer = self.ask(what, LIST_OBJECTS, &[OF_TYPE, kind.to_u8()])?;
        let (entries, rest) = answer.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(odd(what));
        }
        Ok(entries.iter().map(|[high, low, ..]| u16::from_be_bytes([*high, *low])).collect())
    }

    pub(crate) fn object_info(&self, what: &str, id: u16, kind: Type) -> Result<ObjectInfo, Trouble> {
        let answer = self.ask(what, GET_OBJECT_INFO, &object(id, kind))?;
        parse_info(&answer).ok_or_else(|| odd(what))
    }

    /// The number of the algorithm, and the key in the device's form.
    pub(super) fn public_key_bytes(&self, what: &str, id: u16) -> Result<(u8, Vec<u8>), Trouble> {
        let answer = self.ask(what, GET_PUBLIC_KEY, &id.to_be_bytes())?;
        let (algorithm, key) = answer.split_first().ok_or_else(|| odd(what))?;
        Ok((*algorithm, key.to_vec()))
    }

    pub(crate) fn delete(&self, what: &str, id: u16, kind: Type) -> Result<(), Trouble> {
        self.ask(what, DELETE_OBJECT, &object(id, kind)).map(drop)
    }

    pub(crate) fn generate(&self, what: &str, new: &NewObject, kind: asymmetric::Algorithm) -> Result<(), Trouble> {
        self.ask(what, GENERATE_ASYMMETRIC_KEY, &new.bytes(kind.to_u8())).map(drop)
    }

    pub(crate) fn put_key(
        &self,
        what: &str,
        new: &NewObject,
        kind: asymmetric::Algorithm,
        secret: &[u8],
    ) -> Result<(), Trouble> {
        self.put(what, PUT_ASYMMETRIC_KEY, &[&new.bytes(kind.to_u8()), secret])
    }

    pub(crate) fn put_authentication_key(
        &self,
        what: &str,
        new: &NewObject,
        delegated: Capability,
        key: &authentication::Key,
    ) -> Result<(), Trouble> {
        let head = new.bytes(authentication::Algorithm::YubicoAes.to_u8());
        let parts = [&head, &delegated.bits().to_be_bytes()[..], key.as_secret_slice()];
        self.put(what, PUT_AUTHENTICATION_KEY, &parts)
    }

    pub(crate) fn put_wrap_key(
        &self,
        what: &str,
        new: &NewObject,
        delegated: Capability,
        secret: &[u8],
    ) -> Result<(), Trouble> {
        let head = new.bytes(wrap::Algorithm::Aes256Ccm.to_u8());
        self.put(what, PUT_WRAP_KEY, &[&head, &delegated.bits().to_be_bytes(), secret])
    }

    pub(crate) fn put_opaque(&self, what: &str, new: &NewObject, content: &[u8]) -> Result<(), Trouble> {
        self.put(what, PUT_OPAQUE, &[&new.bytes(opaque::Algorithm::Data.to_u8()), content])
    }

    fn put(&self, what: &str, code: u8, parts: &[&[u8]]) -> Result<(), Trouble> {
        let body = Zeroizing::new(parts.concat());
        self.ask(what, code, &body).map(drop)
    }

    pub(crate) fn random(&self, what: &str, bytes: u16) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        self.ask(what, GET_PSEUDO_RANDOM, &bytes.to_be_bytes())
    }

    /// A nonce, and the object under the wrap key.
    pub(crate) fn export_wrapped(&self, what: &str, wrap_key: u16, id: u16, kind: Type) -> Result<Vec<u8>, Trouble> {
        let body = [&wrap_key.to_be_bytes()[..], &[kind.to_u8()], &id.to_be_bytes()].concat();
        Ok(self.ask(what, EXPORT_WRAPPED, &body)?.to_vec())
    }

    /// Returns the type and the id of what was in it.
    pub(crate) fn import_wrapped(&self, what: &str, wrap_key: u16, wrapped: &[u8]) -> Result<(Type, u16), Trouble> {
        let answer = self.ask(what, IMPORT_WRAPPED, &[&wrap_key.to_be_bytes(), wrapped].concat())?;
        match answer[..] {
            [kind, high, low] => Type::from_u8(kind).map(|kind| (kind, u16::from_be_bytes([high, low]))).ok(),
            _ => None,
        }
        .ok_or_else(|| odd(what))
    }

    /// The device wipes itself. Its answer may be lost.
    pub(crate) fn reset(&self, what: &str) -> Result<(), Trouble> {
        self.ask(what, RESET_DEVICE, &[]).map(drop)
    }

    pub(super) fn force_audit_option(&self, what: &str) -> Result<AuditOption, Trouble> {
        let answer = self.ask(what, GET_OPTION, &[FORCE_AUDIT])?;
        match answer[..] {
            [option] => AuditOption::from_u8(option).ok(),
            _ => None,
        }
        .ok_or_else(|| odd(what))
    }

    pub(crate) fn set_force_audit(&self, what: &str, option: AuditOption) -> Result<(), Trouble> {
        self.ask(what, SET_OPTION, &[FORCE_AUDIT, 0, 1, option.to_u8()]).map(drop)
    }

    /// The entries of the device's log, in its form.
    pub(super) fn log_entries(&self, what: &str) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        self.ask(what, GET_LOG_ENTRIES, &[])
    }

    /// Frees the room of all entries up to this one.
    pub(super) fn set_log_index(&self, what: &str, index: u16) -> Result<(), Trouble> {
        self.ask(what, SET_LOG_INDEX, &index.to_be_bytes()).map(drop)
    }
}

fn object(id: u16, kind: Type) -> [u8; 3] {
    let [high, low] = id.to_be_bytes();
    [high, low, kind.to_u8()]
}

fn odd(what: &str) -> Trouble {
    Trouble::Broken(format!("asked to {what}, it sent an answer that no YubiHSM sends").into())
}

fn parse_info(answer: &[u8]) -> Option<ObjectInfo> {
    let (capabilities, rest) = answer.split_first_chunk::<8>()?;
    // Id and length.
    let (_, rest) = rest.split_first_chunk::<4>()?;
    let (domains, rest) = rest.split_first_chunk::<2>()?;
    let ([_kind, algorithm, _sequence, origin], rest) = rest.split_first_chunk::<4>()?;
    let (label, delegated) = rest.split_first_chunk::<LABEL_SIZE>()?;
    (delegated.len() == 8).then(|| ObjectInfo {
        capabilities: Capability::from_bits_retain(u64::from_be_bytes(*capabilities)),
        domains: Domain::from_bits_retain(u16::from_be_bytes(*domains)),
        algorithm: Algorithm::from_u8(*algorithm).map_err(|_| *algorithm),
        origin: Origin::from_u8(*origin).ok(),
        label: Label(*label).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_object_is_made_with_is_laid_out_as_the_device_reads_it() {
        let new = NewObject {
            id: 0x0102,
            label: Label::from_bytes(b"ab").unwrap(),
            domains: Domain::DOM1 | Domain::DOM16,
            capabilities: Capability::SIGN_EDDSA,
        };
        let bytes = new.bytes(46);
        assert_eq!(bytes.len(), 2 + LABEL_SIZE + 2 + 8 + 1);
        assert_eq!(bytes[..5], [1, 2, b'a', b'b', 0]);
        assert_eq!(bytes[42..], [0x80, 1, 0, 0, 0, 0, 0, 0, 1, 0, 46]);
    }

    #[test]
    fn the_description_of_an_object_is_read_also_with_an_algorithm_of_later_firmware() {
        let mut answer = vec![0, 0, 0, 0, 0, 0, 1, 0, 0, 7, 0, 64, 0, 1, 3, 46, 0, 1];
        answer.extend_from_slice(&Label::from_bytes(b"consensus").unwrap().0);
        answer.extend_from_slice(&[0; 8]);
        let info = parse_info(&answer).unwrap();
        assert_eq!((info.capabilities, info.domains), (Capability::SIGN_EDDSA, Domain::DOM1));
        assert_eq!((info.algorithm.unwrap().to_u8(), info.origin), (46, Some(Origin::Generated)));
        assert_eq!(info.label, "consensus");
        answer[15] = 250;
        assert_eq!(parse_info(&answer).unwrap().algorithm.err(), Some(250));
        assert!(parse_info(&answer[1..]).is_none());
    }
}
