//! One key on one device or on several: when the first fails, the next takes over.
//!
//! All of them stand behind the same watermark, and are asked for a signature over the same bytes, one after the other:
//! two answers to one request can differ (in ECDSA) and still never conflict.

use super::{Device, Submitted};
use highwater_core::{
    consensus::{PublicKey, Signature},
    signer::{Pending, SignError, Signer},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
    vec,
};

/// How long after it was asked a request may still go on to another device. One more deadline after that is below the 5 s
/// after which CometBFT gives up on its signer.
const GO_ON_FOR: Duration = Duration::from_millis(2500);

/// Where a key is.
#[derive(Clone)]
pub struct KeyPlace {
    /// On this device.
    pub device: Arc<Device>,
    /// Where it stands among the keys of `device`.
    pub index: usize,
}

/// A key in devices.
pub struct DeviceKey {
    places: Vec<KeyPlace>,
    public_key: PublicKey,
}

impl DeviceKey {
    /// The key in these places, which are tried in this order. `public_key` is pinned: what each device is started with.
    pub fn new(places: Vec<KeyPlace>, public_key: PublicKey) -> Self {
        Self { places, public_key }
    }
}

impl Signer for DeviceKey {
    fn public_key(&self) -> PublicKey {
        self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        let signatures = Box::new(Ticket::begin(&self.places, &[message], Instant::now())?).wait()?;
        Ok(*signatures.first().expect("one signature for one message"))
    }

    fn begin(&self, messages: &[&[u8]], asked_at: Instant) -> Result<Option<Box<dyn Pending>>, SignError> {
        Ok(Some(Box::new(Ticket::begin(&self.places, messages, asked_at)?)))
    }
}

/// Signatures that a device is making, and the devices that are asked next if it fails.
struct Ticket {
    pending: Submitted,
    messages: Vec<Vec<u8>>,
    asked_at: Instant,
    rest: vec::IntoIter<KeyPlace>,
    failures: Failures,
}

/// What the devices said that did not sign.
#[derive(Default)]
struct Failures(Vec<String>);

impl Ticket {
    /// Begins on the first device that does not refuse at once.
    fn begin(places: &[KeyPlace], messages: &[&[u8]], asked_at: Instant) -> Result<Self, SignError> {
        let mut rest = Vec::from(places).into_iter();
        let mut failures = Failures::default();
        let pending = failures.submit(&mut rest, messages, asked_at)?;
        let messages = messages.iter().map(|message| message.to_vec()).collect();
        Ok(Self { pending, messages, asked_at, rest, failures })
    }
}

impl Pending for Ticket {
    /// Goes on to the next device if one fails.
    fn wait(mut self: Box<Self>) -> Result<Vec<Signature>, SignError> {
        loop {
            match self.pending.wait() {
                Ok(signatures) => return Ok(signatures),
                Err(error) => self.failures.add(error),
            }
            if self.asked_at.elapsed() > GO_ON_FOR {
                return Err(self.failures.into_error());
            }
            let messages: Vec<_> = self.messages.iter().map(Vec::as_slice).collect();
            // Another device has a deadline of its own.
            self.pending = self.failures.submit(&mut self.rest, &messages, Instant::now())?;
        }
    }
}

impl Failures {
    /// Submits to the first of these places that does not refuse at once.
    fn submit(
        &mut self,
        places: &mut vec::IntoIter<KeyPlace>,
        messages: &[&[u8]],
        asked_at: Instant,
    ) -> Result<Submitted, SignError> {
        for place in places {
            match place.device.submit(place.index, messages, asked_at) {
                Ok(pending) => return Ok(pending),
                Err(error) => self.add(error),
            }
        }
        Err(std::mem::take(self).into_error())
    }

    fn add(&mut self, error: SignError) {
        let SignError::Backend(text) = error;
        self.0.push(text);
    }

    fn into_error(self) -> SignError {
        SignError::Backend(self.0.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::{
        device::{DeviceSetup, Health, Opener, Session, Trouble},
        softsign::SecretKey,
    };
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };
    use zeroize::Zeroizing;

    fn software_key() -> Box<dyn Signer> {
        SecretKey::Ed25519Seed(Box::new(Zeroizing::new([0x42; 32]))).into_signer()
    }

    /// What a device does once it is up.
    #[derive(Clone, Copy, Default, PartialEq)]
    enum Mood {
        Broken,
        Hang,
        Reject,
        #[default]
        Well,
    }

    #[derive(Clone, Default)]
    struct Bench {
        mood: Arc<std::sync::Mutex<Mood>>,
        signed: Arc<AtomicUsize>,
    }

    impl Opener for Bench {
        fn open(&mut self, _deadline: Instant) -> Result<Box<dyn Session>, Trouble> {
            Ok(Box::new(self.clone()))
        }
    }

    impl Session for Bench {
        fn sign(&mut self, _key: usize, message: &[u8], deadline: Instant) -> Result<Signature, Trouble> {
            let mood = *self.mood.lock().unwrap();
            match mood {
                Mood::Broken => Err(Trouble::Broken("unplugged".into())),
                Mood::Hang => {
                    thread::sleep(deadline.saturating_duration_since(Instant::now()));
                    Err(Trouble::Late)
                }
                Mood::Reject => Err(Trouble::Rejected("there is no key 2".into())),
                Mood::Well => {
                    self.signed.fetch_add(1, Ordering::SeqCst);
                    Ok(software_key().sign(message).unwrap())
                }
            }
        }
    }

    impl Bench {
        fn place(&self, name: &str) -> KeyPlace {
            let keys = vec![software_key().public_key()];
            let opener = Box::new(self.clone());
            let setup = DeviceSetup { name: name.into(), opener, keys, message_max_bytes: None, chains: vec![] };
            KeyPlace { device: Device::start(setup).unwrap(), index: 0 }
        }

        fn feel(&self, mood: Mood) {
            *self.mood.lock().unwrap() = mood;
        }

        fn signed(&self) -> usize {
            self.signed.load(Ordering::SeqCst)
        }
    }

    fn pair() -> (Bench, Bench, DeviceKey) {
        let (first, second) = (Bench::default(), Bench::default());
        let key = DeviceKey::new(vec![first.place("first"), second.place("second")], software_key().public_key());
        (first, second, key)
    }

    #[test]
    fn the_first_device_signs_while_it_is_well() {
        let (first, second, key) = pair();
        let before = second.signed();
        for _ in 0..5 {
            assert_eq!(key.sign(b"message"), software_key().sign(b"message"));
        }
        assert_eq!((first.signed(), second.signed()), (6, before));
    }

    #[test]
    fn no_request_is_lost_when_the_first_device_fails_whatever_way() {
        for (mood, most) in [(Mood::Broken, 1000), (Mood::Reject, 1000), (Mood::Hang, 2200)] {
            let (first, _second, key) = pair();
            first.feel(mood);
            let begin = Instant::now();
            assert_eq!(key.sign(b"message"), software_key().sign(b"message"));
            assert!(begin.elapsed() < Duration::from_millis(most), "{:?}", begin.elapsed());
            for _ in 0..5 {
                assert!(key.sign(b"message").is_ok());
            }
        }
    }

    #[test]
    fn a_hang_costs_one_deadline_once_and_the_first_comes_back_by_itself() {
        let (first, second, key) = pair();
        first.feel(Mood::Hang);
        assert!(key.sign(b"message").is_ok());
        let begin = Instant::now();
        assert!(key.sign(b"message").is_ok());
        assert!(begin.elapsed() < Duration::from_millis(100), "{:?}", begin.elapsed());
        first.feel(Mood::Well);
        let deadline = Instant::now() + Duration::from_secs(30);
        while key.places[0].device.health() != Health::Up {
            assert!(Instant::now() < deadline, "the first device never came back");
            thread::sleep(Duration::from_millis(20));
        }
        let before = second.signed();
        assert!(key.sign(b"message").is_ok());
        assert_eq!(second.signed(), before);
    }

    #[test]
    fn when_all_fail_the_error_names_each_with_its_reason() {
        let (first, second, key) = pair();
        first.feel(Mood::Broken);
        second.feel(Mood::Reject);
        let error = key.sign(b"message").unwrap_err().to_string();
        assert!(error.contains("first: unplugged; second: there is no key 2"), "{error}");
    }

    #[test]
    fn several_messages_are_signed_by_one_device_in_their_order() {
        let (first, _second, key) = pair();
        first.feel(Mood::Broken);
        let signatures = key.begin(&[b"vote", b"extension"], Instant::now()).unwrap().unwrap().wait().unwrap();
        let expected: Vec<_> = [&b"vote"[..], b"extension"].map(|m| software_key().sign(m).unwrap()).to_vec();
        assert_eq!(signatures, expected);
    }
}
