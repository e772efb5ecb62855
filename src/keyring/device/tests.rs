//! A device that fails on demand: what its callers see, and for how long.

use super::*;
use crate::keyring::{
    device::failover::{DeviceKey, KeyPlace},
    softsign::SecretKey,
};
use highwater_core::{consensus::KeyType, signer::Signer};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

fn software_key() -> Box<dyn Signer> {
    SecretKey::from_raw(KeyType::Ed25519, &[0x42; 32]).unwrap().into_signer()
}

/// What the next calls do, taken from the front. After that, all calls succeed.
#[derive(Clone, Debug)]
enum Fault {
    Broken,
    Fatal,
    FlippedBit,
    Hang,
    Rejected,
    Temporary,
}

#[derive(Clone, Default)]
struct Bench {
    faults: Arc<Mutex<Vec<Fault>>>,
    unplugged: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    signed: Arc<AtomicUsize>,
    /// Whether the device has its second key and those after it.
    keys: Arc<AtomicBool>,
    latency_ms: Arc<AtomicU64>,
    /// Whether there is a chore, which hangs.
    hanging_chore: Arc<AtomicBool>,
}

struct BenchSession(Bench);

impl Opener for Bench {
    fn open(&mut self, _deadline: Instant) -> Result<Box<dyn Session>, Trouble> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        match self.unplugged.load(Ordering::SeqCst) {
            true => Err(Trouble::Broken("unplugged".into())),
            false => Ok(Box::new(BenchSession(self.clone()))),
        }
    }
}

impl Session for BenchSession {
    fn sign(&mut self, key: usize, message: &[u8], deadline: Instant) -> Result<Signature, Trouble> {
        if key > 0 && !self.0.keys.load(Ordering::SeqCst) {
            return Err(Trouble::Rejected(format!("there is no key {key}").into()));
        }
        thread::sleep(Duration::from_millis(self.0.latency_ms.load(Ordering::SeqCst)));
        if self.0.unplugged.load(Ordering::SeqCst) {
            return Err(Trouble::Broken("unplugged".into()));
        }
        self.0.signed.fetch_add(1, Ordering::SeqCst);
        let mut faults = self.0.faults.lock().unwrap();
        let fault = if faults.is_empty() { None } else { Some(faults.remove(0)) };
        drop(faults);
        let signature = software_key().sign(message).unwrap();
        match fault {
            None => Ok(signature),
            Some(Fault::Broken) => Err(Trouble::Broken("played".into())),
            Some(Fault::Fatal) => Err(Trouble::Fatal("wrong PIN".into())),
            Some(Fault::Rejected) => Err(Trouble::Rejected("no such mechanism".into())),
            Some(Fault::Temporary) => Err(Trouble::Temporary("generic error".into())),
            Some(Fault::FlippedBit) => {
                let mut bytes = signature.as_bytes().to_vec();
                bytes[5] ^= 1;
                Ok(Signature::new(&bytes))
            }
            Some(Fault::Hang) => {
                thread::sleep(deadline.saturating_duration_since(Instant::now()));
                Err(Trouble::Late)
            }
        }
    }

    fn idle_before_chore(&self) -> Option<Duration> {
        self.0.hanging_chore.load(Ordering::SeqCst).then_some(Duration::ZERO)
    }

    fn chore(&mut self, deadline: Instant) -> Result<(), Trouble> {
        self.0.hanging_chore.store(false, Ordering::SeqCst);
        thread::sleep(deadline.saturating_duration_since(Instant::now()));
        Err(Trouble::Late)
    }
}

impl Bench {
    fn start(&self) -> Arc<Device> {
        self.start_with(1)
    }

    fn start_with(&self, keys: usize) -> Arc<Device> {
        let keys = vec![software_key().public_key(); keys];
        let opener = Box::new(self.clone());
        let setup = DeviceSetup { name: "bench".into(), opener, keys, message_max_bytes: Some(2019), chains: vec![] };
        Device::start(setup).unwrap()
    }

    fn play(&self, faults: &[Fault]) {
        *self.faults.lock().unwrap() = faults.to_vec();
    }
}

fn sign(device: &Arc<Device>) -> Result<Signature, SignError> {
    let place = KeyPlace { device: Arc::clone(device), index: 0 };
    DeviceKey::new(vec![place], software_key().public_key()).sign(b"message")
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} never came");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_device_comes_up_with_a_self_test_and_signs() {
    let bench = Bench::default();
    let device = bench.start();
    assert_eq!(device.health(), Health::Up);
    assert_eq!(bench.signed.load(Ordering::SeqCst), 1, "the self-test");
    assert_eq!(sign(&device), software_key().sign(b"message"));
}

#[test]
fn an_error_that_may_pass_costs_no_session_and_is_over_soon_after_the_device_is_well() {
    let bench = Bench::default();
    let device = bench.start();
    let before = bench.opened.load(Ordering::SeqCst);
    bench.play(&[Fault::Temporary]);
    assert!(sign(&device).is_ok(), "the second try is in time");
    // Asked again and again for more than a second: each try takes one from the list.
    bench.play(&vec![Fault::Temporary; 1000]);
    for _ in 0..FAILURES_TO_TRIP {
        assert!(sign(&device).is_err());
    }
    assert!(matches!(device.health(), Health::Down(_)));
    thread::sleep(Duration::from_secs(3));
    bench.play(&[]);
    let well = Instant::now();
    wait_until("the device", || device.health() == Health::Up);
    assert!(well.elapsed() < Duration::from_secs(1), "{:?}", well.elapsed());
    assert_eq!(bench.opened.load(Ordering::SeqCst), before, "no session was replaced");
}

#[test]
fn one_fault_costs_a_new_session_and_nothing_else() {
    for fault in [Fault::Broken, Fault::FlippedBit] {
        let bench = Bench::default();
        let device = bench.start();
        bench.play(std::slice::from_ref(&fault));
        assert_eq!(sign(&device), software_key().sign(b"message"), "{fault:?}");
        assert_eq!(bench.opened.load(Ordering::SeqCst), 2, "{fault:?}");
        assert_eq!(device.health(), Health::Up);
    }
}

#[test]
fn a_wrong_signature_never_leaves_even_twice() {
    let bench = Bench::default();
    let device = bench.start();
    bench.play(&[Fault::FlippedBit, Fault::FlippedBit]);
    let error = sign(&device).unwrap_err();
    assert!(error.to_string().contains("does not verify"), "{error}");
    assert!(sign(&device).is_ok());
}

#[test]
fn a_clear_answer_is_not_asked_for_again() {
    let bench = Bench::default();
    let device = bench.start();
    bench.play(&[Fault::Rejected]);
    assert!(sign(&device).unwrap_err().to_string().contains("no such mechanism"));
    assert_eq!((bench.opened.load(Ordering::SeqCst), bench.signed.load(Ordering::SeqCst)), (1, 2));
    assert_eq!(device.health(), Health::Up);
}

#[test]
fn a_fatal_answer_is_refused_at_once_and_ends_when_its_cause_does() {
    let bench = Bench::default();
    let device = bench.start();
    bench.play(&vec![Fault::Fatal; 5]);
    assert!(sign(&device).is_err());
    let begin = Instant::now();
    assert!(sign(&device).unwrap_err().to_string().contains("wrong PIN"));
    assert!(begin.elapsed() < Duration::from_millis(20), "{:?}", begin.elapsed());
    // Of one request it is not even tried twice.
    assert_eq!(bench.opened.load(Ordering::SeqCst), 1);
    wait_until("up", || device.health() == Health::Up);
    assert_eq!(sign(&device), software_key().sign(b"message"));
}

#[test]
fn a_hang_is_answered_in_time_and_then_costs_no_time_until_a_self_test_succeeds() {
    let bench = Bench::default();
    let device = bench.start();
    bench.play(&[Fault::Hang]);
    let begin = Instant::now();
    assert!(sign(&device).is_err());
    assert!(begin.elapsed() < Duration::from_millis(1500), "{:?}", begin.elapsed());
    bench.unplugged.store(true, Ordering::SeqCst);
    wait_until("down", || matches!(device.health(), Health::Down(_)));
    let begin = Instant::now();
    for _ in 0..100 {
        assert!(sign(&device).is_err());
    }
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    bench.unplugged.store(false, Ordering::SeqCst);
    wait_until("up", || device.health() == Health::Up);
    assert!(sign(&device).is_ok());
}

#[test]
fn a_chore_that_hangs_takes_little_time_and_shows_that_the_device_is_down() {
    let bench = Bench::default();
    let device = bench.start();
    bench.hanging_chore.store(true, Ordering::SeqCst);
    // The thread looks for a chore after it has served.
    sign(&device).unwrap();
    bench.unplugged.store(true, Ordering::SeqCst);
    let begin = Instant::now();
    wait_until("down", || matches!(device.health(), Health::Down(_)));
    assert!(begin.elapsed() < Duration::from_millis(700), "{:?}", begin.elapsed());
    bench.unplugged.store(false, Ordering::SeqCst);
    wait_until("up", || device.health() == Health::Up);
    assert!(begin.elapsed() < Duration::from_secs(3), "a self-test comes soon: {:?}", begin.elapsed());
}

#[test]
fn a_device_that_is_down_at_the_start_is_waited_for() {
    let bench = Bench::default();
    bench.unplugged.store(true, Ordering::SeqCst);
    let device = bench.start();
    assert!(matches!(device.health(), Health::Down(_)));
    bench.unplugged.store(false, Ordering::SeqCst);
    wait_until("up", || device.health() == Health::Up);
    assert!(sign(&device).is_ok());
}

#[test]
fn a_long_message_is_refused_before_it_reaches_the_device() {
    let bench = Bench::default();
    let device = bench.start();
    let long = vec![0; 2020];
    let error = device.submit(0, &[b"vote", &long], Instant::now()).err().unwrap();
    assert!(error.to_string().contains("at most 2019 bytes"), "{error}");
    assert!(device.submit(0, &[b"vote", &long[..2019]], Instant::now()).is_ok());
}

#[test]
fn a_full_queue_refuses_at_once_and_everybody_is_answered_in_time() {
    let bench = Bench::default();
    let device = bench.start();
    bench.play(&[Fault::Hang]);
    let begin = Instant::now();
    let tickets: Vec<_> = (0..30).map(|_| device.submit(0, &[b"message"], Instant::now())).collect();
    assert!(begin.elapsed() < Duration::from_millis(300));
    assert!(tickets.iter().filter(|ticket| ticket.is_err()).count() >= 30 - QUEUE_REQUESTS - 1);
    for ticket in tickets.into_iter().flatten() {
        let _ = ticket.wait();
    }
    assert!(begin.elapsed() < Duration::from_millis(1800), "{:?}", begin.elapsed());
}

#[test]
fn a_missing_key_does_not_keep_the_others_from_signing() {
    let bench = Bench::default();
    let device = bench.start_with(3);
    assert_eq!(device.health(), Health::Up);
    for _ in 0..5 {
        let error = device.submit(2, &[b"message"], Instant::now()).unwrap().wait().unwrap_err();
        assert!(error.to_string().contains("there is no key 2"), "{error}");
        assert!(sign(&device).is_ok());
    }
    bench.keys.store(true, Ordering::SeqCst);
    assert!(device.submit(2, &[b"message"], Instant::now()).unwrap().wait().is_ok(), "found as soon as it is there");
}

#[test]
fn more_work_than_time_costs_no_session_and_does_not_count_as_a_failure() {
    let bench = Bench::default();
    bench.latency_ms.store(200, Ordering::SeqCst);
    let device = bench.start();
    // Five or six of them fit into the deadline.
    let tickets: Vec<_> =
        (0..QUEUE_REQUESTS).map(|_| device.submit(0, &[b"message"], Instant::now()).unwrap()).collect();
    let results: Vec<_> = tickets.into_iter().map(Submitted::wait).collect();
    let refused: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(!refused.is_empty() && refused.len() <= 5, "{refused:?}");
    assert!(refused.iter().all(|error| error.to_string().contains("too many requests")), "{refused:?}");
    assert_eq!((device.health(), bench.opened.load(Ordering::SeqCst)), (Health::Up, 1));
    assert!(sign(&device).is_ok());
}

#[test]
fn no_more_requests_wait_than_there_are() {
    let bench = Bench::default();
    // It refuses its second key at once, before this thread continues.
    let device = bench.start_with(2);
    let end = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let look = scope.spawn(|| {
            let mut most = 0;
            while !end.load(Ordering::SeqCst) {
                most = most.max(device.stats().waiting());
            }
            most
        });
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(2) {
            assert!(device.submit(1, &[b"message"], Instant::now()).unwrap().wait().is_err());
        }
        end.store(true, Ordering::SeqCst);
        look.join().unwrap()
    });
    assert!(most <= 1, "{most} requests waited at one time, and only one caller asks");
}

#[test]
fn what_the_queue_does_not_take_waits_for_nothing() {
    let bench = Bench::default();
    let device = bench.start();
    bench.latency_ms.store(100, Ordering::SeqCst);
    let pending: Vec<_> = (0..QUEUE_REQUESTS * 3).map(|_| device.submit(0, &[b"message"], Instant::now())).collect();
    assert!(pending.iter().any(Result::is_err));
    wait_until("the end of the queue", || device.stats().waiting() == 0);
}
