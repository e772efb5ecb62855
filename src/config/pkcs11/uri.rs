//! `pkcs11:` URIs (RFC 7512), as `p11tool`, OpenSSL and vendors print them: the attributes that name a token and a key.
//!
//! A URI can hold a PIN. No error of this file shows any part of it but the name of an attribute.

use super::spec::{OBJECT_NAME_MAX_BYTES, ObjectSelector, TokenSelector};
use std::{fmt, path::PathBuf};

/// The scheme, with its colon.
const SCHEME: &str = "pkcs11:";
/// Much longer than any attribute that a device can have.
const URI_MAX_BYTES: usize = 4096;

/// What a URI says of a token and a key on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pkcs11Uri {
    /// `token` and `serial`
    pub token: Option<TokenSelector>,
    /// `id` and `object`
    pub object: Option<ObjectSelector>,
    /// `module-path`
    pub module: Option<PathBuf>,
}

/// Why a URI is not taken. Completes "a pkcs11: URI: ...".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UriError {
    /// Two values for one attribute.
    Doubled(&'static str),
    /// A character that must be written as %XX, or a % without two hex digits.
    Encoding,
    /// It names an object that cannot be a signing key.
    Kind,
    /// It names a library without its directory.
    ModuleName,
    /// Neither a token nor a key.
    Nothing,
    /// It names a file of the PIN. The path as it is, if it is one.
    PinSource(Option<PathBuf>),
    /// It holds a PIN.
    PinValue,
    /// The value of this attribute cannot be one.
    Value(&'static str),
}

/// Whether `text` is meant as a URI.
pub fn is_uri(text: &str) -> bool {
    text.get(..SCHEME.len()).is_some_and(|head| head.eq_ignore_ascii_case(SCHEME))
}

impl Pkcs11Uri {
    /// Reads a URI. Attributes of the library, the slot and the maker are accepted and not used: token, serial, id and
    /// object say enough, and they stay the same when the device's software is updated.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        // The PIN first, so that a mistake elsewhere does not keep it unsaid.
        let body = text.get(SCHEME.len()..).filter(|_| is_uri(text)).ok_or(UriError::Encoding)?;
        let (path, query) = body.split_once('?').unwrap_or((body, ""));
        let attributes = || path.split(';').chain(query.split('&')).filter(|part| !part.is_empty());
        if attributes().any(|part| name_of(part) == "pin-value") {
            return Err(UriError::PinValue);
        }
        if text.len() > URI_MAX_BYTES {
            return Err(UriError::Encoding);
        }
        let mut found = Found::default();
        for part in attributes() {
            let (name, value) = part.split_once('=').ok_or(UriError::Encoding)?;
            found.take(name, decode(value)?)?;
        }
        found.into_uri()
    }
}

/// The attributes that are used, decoded.
#[derive(Default)]
struct Found {
    token: Option<Vec<u8>>,
    serial: Option<Vec<u8>>,
    id: Option<Vec<u8>>,
    object: Option<Vec<u8>>,
    module: Option<Vec<u8>>,
}

impl Found {
    fn take(&mut self, name: &str, value: Vec<u8>) -> Result<(), UriError> {
        let (place, name) = match name {
            "token" => (&mut self.token, "token"),
            "serial" => (&mut self.serial, "serial"),
            "id" => (&mut self.id, "id"),
            "object" => (&mut self.object, "object"),
            "module-path" => (&mut self.module, "module-path"),
            "module-name" => return Err(UriError::ModuleName),
            "pin-source" => return Err(UriError::PinSource(pin_file(&value))),
            // A tool that lists both halves names either.
            "type" if !matches!(&value[..], b"private" | b"public") => return Err(UriError::Kind),
            _ => return Ok(()),
        };
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err(UriError::Doubled(name)),
        }
    }

    fn into_uri(self) -> Result<Pkcs11Uri, UriError> {
        let token = self.token.map(|value| text(value, "token", super::TOKEN_LABEL_MAX_BYTES)).transpose()?;
        let serial = self.serial.map(|value| text(value, "serial", super::TOKEN_SERIAL_MAX_BYTES)).transpose()?;
        let label = self.object.map(|value| text(value, "object", OBJECT_NAME_MAX_BYTES)).transpose()?;
        let module = self.module.map(|value| text(value, "module-path", URI_MAX_BYTES)).transpose()?;
        if self.id.as_ref().is_some_and(|id| id.is_empty() || id.len() > OBJECT_NAME_MAX_BYTES) {
            return Err(UriError::Value("id"));
        }
        let module = module.map(PathBuf::from);
        if module.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(UriError::Value("module-path"));
        }
        let uri =
            Pkcs11Uri { token: TokenSelector::of(token, serial), object: ObjectSelector::of(self.id, label), module };
        if uri.token.is_none() && uri.object.is_none() { Err(UriError::Nothing) } else { Ok(uri) }
    }
}

fn name_of(part: &str) -> &str {
    part.split('=').next().unwrap_or_default()
}

/// The bytes of a value, in which %XX stands for one byte.
fn decode(value: &str) -> Result<Vec<u8>, UriError> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit(), digit());
                let value = high.zip(low).and_then(|(high, low)| u8::try_from(16 * high + low).ok());
                bytes.push(value.ok_or(UriError::Encoding)?);
            }
            b'\0'..=b' ' | 0x7f => return Err(UriError::Encoding),
            // Tools also leave letters beyond ASCII as they are.
            _ => bytes.push(byte),
        }
    }
    Ok(bytes)
}

fn text(value: Vec<u8>, name: &'static str, max_bytes: usize) -> Result<String, UriError> {
    let text = String::from_utf8(value).ok();
    let fits = |text: &String| !text.is_empty() && text.len() <= max_bytes && !text.contains(char::is_control);
    text.filter(fits).ok_or(UriError::Value(name))
}

/// The path in a `pin-source`, as `file:/path`, `file:///path` or `/path`. Not that of a program.
fn pin_file(value: &[u8]) -> Option<PathBuf> {
    let text = str::from_utf8(value).ok()?;
    let path = text.strip_prefix("file:").unwrap_or(text);
    let path = path.strip_prefix("//").map_or(path, |rest| rest.strip_prefix("localhost").unwrap_or(rest));
    (path.starts_with('/') && !path.contains(char::is_control)).then(|| path.into())
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Doubled(name) => write!(f, "it has `{name}` twice: remove one"),
            Self::Encoding => f.write_str(
                "it cannot be read: write name=value pairs with ; between them, as in pkcs11:token=validator;object=my-key, and \
                 every blank and special character as %XX",
            ),
            Self::Kind => f.write_str("its `type` is not that of a key: take the URI of the private key"),
            Self::ModuleName => f.write_str(
                "`module-name` does not say where the module is: remove it, and write the path of the module with `module`, or \
                 with --module on the command line",
            ),
            Self::Nothing => f.write_str("it names neither a token (`token`, `serial`) nor a key (`object`, `id`)"),
            Self::PinSource(path) => {
                f.write_str("the source of the PIN does not belong in it: remove `pin-source`, and write ")?;
                let path = path.as_ref().map_or("/path/of/the/pin".into(), |path| path.display().to_string());
                write!(f, "pin = {{ file = {path:?} }}, or --pin-file {path:?} on the command line")
            }
            Self::PinValue => f.write_str(
                "it holds the PIN itself (`pin-value`), and what is written in a command or in this file is seen by others: \
                 remove `pin-value`, and put the PIN into a file with mode 0600 that `pin` or --pin-file names. If others could \
                 have read the URI, change the PIN",
            ),
            Self::Value(name) => write!(f, "its `{name}` cannot be one: it is empty, too long, or not text"),
        }
    }
}

impl std::error::Error for UriError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(id: &[u8], label: &str) -> ObjectSelector {
        ObjectSelector::Both { id: id.to_vec(), label: label.into() }
    }

    #[test]
    fn uris_of_tools_are_read() {
        // As p11tool prints it.
        let uri = Pkcs11Uri::parse(
            "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=7d5c4b6ba8a2f3b9;token=my%20token;id=%01%aF;\
             object=key%3bone;type=private",
        );
        let token = TokenSelector::Both { label: "my token".into(), serial: "7d5c4b6ba8a2f3b9".into() };
        assert_eq!(uri, Ok(Pkcs11Uri { token: Some(token), object: Some(both(&[1, 0xaf], "key;one")), module: None }));
        let uri = Pkcs11Uri::parse("PKCS11:token=a;slot-id=3?module-path=/usr/lib/a.so&x-vendor=1").unwrap();
        assert_eq!(uri.token, Some(TokenSelector::Label("a".into())));
        assert_eq!(uri.module, Some("/usr/lib/a.so".into()));
        // Raw bytes that are letters are allowed in an id.
        let uri = Pkcs11Uri::parse("pkcs11:id=a%00b").unwrap();
        assert_eq!(uri.object, Some(ObjectSelector::Id(b"a\0b".to_vec())));
        assert_eq!(Pkcs11Uri::parse("pkcs11:serial=01").unwrap().token, Some(TokenSelector::Serial("01".into())));
        assert_eq!(
            Pkcs11Uri::parse("pkcs11:object=%e2%82%ac").unwrap().object,
            Some(ObjectSelector::Label("€".into()))
        );
    }

    #[test]
    fn what_cannot_be_used_is_named_and_nothing_of_it_is_shown() {
        let long = format!("pkcs11:token={}", "a".repeat(33));
        let endless = format!("pkcs11:object={}", "%41".repeat(2000));
        for (text, error) in [
            ("pkcs11:", UriError::Nothing),
            ("pkcs11:model=a", UriError::Nothing),
            ("pkcs11:token", UriError::Encoding),
            ("pkcs11:token=a b", UriError::Encoding),
            ("pkcs11:token=%4", UriError::Encoding),
            ("pkcs11:token=%+4", UriError::Encoding),
            ("pkcs11:token=%zz", UriError::Encoding),
            (&endless, UriError::Encoding),
            ("pkcs11:token=a;token=b", UriError::Doubled("token")),
            ("pkcs11:token=", UriError::Value("token")),
            ("pkcs11:token=%ff", UriError::Value("token")),
            (&long, UriError::Value("token")),
            ("pkcs11:id=", UriError::Value("id")),
            ("pkcs11:object=a?module-path=a.so", UriError::Value("module-path")),
            ("pkcs11:object=a?module-name=a", UriError::ModuleName),
            ("pkcs11:object=a;type=cert", UriError::Kind),
            ("pkcs11:object=a?pin-source=file:/etc/pin", UriError::PinSource(Some("/etc/pin".into()))),
            ("pkcs11:object=a?pin-source=file%3a///etc/pin", UriError::PinSource(Some("/etc/pin".into()))),
            ("pkcs11:object=a?pin-source=%7c/bin/ask", UriError::PinSource(None)),
            ("pkcs11:object=a?pin-value=hunter2", UriError::PinValue),
            // Where it does not belong, and after a mistake.
            ("pkcs11:token=%zz;pin-value=hunter2", UriError::PinValue),
            ("pkcs11:pin-value", UriError::PinValue),
        ] {
            let found = Pkcs11Uri::parse(text).unwrap_err();
            assert_eq!(found, error, "{text}");
            assert!(!found.to_string().contains("hunter2") && !format!("{found:?}").contains("hunter2"), "{found}");
        }
        assert!(UriError::PinSource(Some("/etc/pin".into())).to_string().contains("pin = { file = \"/etc/pin\" }"));
    }

    #[test]
    fn only_the_scheme_makes_a_uri() {
        for (text, is) in
            [("pkcs11:", true), ("PKCS11:a", true), ("pkcs11", false), ("é", false), ("my pkcs11:", false)]
        {
            assert_eq!(is_uri(text), is, "{text}");
        }
    }
}
