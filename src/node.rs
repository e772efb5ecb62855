//! One validator node: dial it, wait for it to speak, serve its requests, dial again.
//!
//! Each node has its own thread and blocks only on its own connection, so it cannot delay other nodes.

use crate::{
    config::ValidatorConfig,
    keyring::IdentityKey,
    link::{self, Closer, Door, Link, LinkError},
    process::{backoff::Backoff, lock::lock, resolver::Resolver},
    record::{
        event::{self, Source},
        quiet::Rate,
        recorder::{Recorder, Tape},
        served::ServedChain,
        stats::NodeStats,
    },
};
use highwater_core::{
    answer::{Unanswerable, answer},
    privval::response,
};
use std::{
    convert::Infallible,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tracing::{debug, info, warn};

/// One validator node and its chain.
pub struct Node {
    config: ValidatorConfig,
    name: Arc<str>,
    /// Our identity on a SecretConnection; unix sockets need none.
    identity: Option<Arc<IdentityKey>>,
    chain: Arc<ServedChain>,
    resolver: Resolver,
    stop: Arc<Stop>,
    stats: Arc<NodeStats>,
    tape: Option<Arc<Tape>>,
}

impl Node {
    /// A node that has not been dialled yet.
    ///
    /// # Panics
    /// If a TCP node has no identity key: the configuration requires one.
    pub fn new(
        config: ValidatorConfig,
        identity: Option<Arc<IdentityKey>>,
        chain: Arc<ServedChain>,
        resolver: Resolver,
    ) -> Self {
        let needs_identity = config.address.identity_key().is_some();
        assert!(identity.is_some() || !needs_identity, "a tcp node has an identity key");
        let name = config.address.to_string().into();
        Self { config, name, identity, chain, resolver, stop: Arc::default(), stats: Arc::default(), tape: None }
    }

    /// Lets the recorder log the result of each request. Without a recorder, the node's own thread logs it.
    pub fn report_to(&mut self, recorder: &Recorder) {
        let key = self.chain.chain().public_key().ok().map(|key| key.to_string());
        let source = Source { chain: self.chain.id().clone(), key, node: Arc::clone(&self.name) };
        self.tape = Some(recorder.tape(source));
    }

    /// Where its events go, if a recorder logs them.
    pub fn tape(&self) -> Option<Arc<Tape>> {
        self.tape.clone()
    }

    pub fn config(&self) -> &ValidatorConfig {
        &self.config
    }

    /// A handle that ends [`Node::run`] from another thread.
    pub fn stop_handle(&self) -> Arc<Stop> {
        Arc::clone(&self.stop)
    }

    /// Counters of its requests.
    pub fn stats(&self) -> Arc<NodeStats> {
        Arc::clone(&self.stats)
    }

    /// Locks the identity key into memory. Returns whether that succeeded.
    pub fn lock_secrets(&self) -> bool {
        self.identity.as_ref().is_none_or(|identity| identity.lock_secrets())
    }

    pub fn chain(&self) -> &Arc<ServedChain> {
        &self.chain
    }

    /// The node's address.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Serves the node until it is stopped, or until its first lost link if `reconnect = false`.
    pub fn run(&self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut repeats = Repeats::default();
        // A node that accepts each connection and closes it is dialled twenty times a second.
        let mut ups = Rate::new(10, Duration::from_secs(10));
        loop {
            let ended = self.connect_and_serve(&mut ups, || backoff.reset());
            self.stop.let_go();
            if self.stop.is_stopping() {
                return;
            }
            let Err(error) = ended;
            self.stats.link_down(&error.to_string());
            repeats.report(&error.to_string(), |text, times| {
                warn!(chain = %self.chain.id(), node = %self.name, times, "link lost: {text}");
            });
            if !self.config.reconnect {
                warn!(chain = %self.chain.id(), node = %self.name, "not dialling again: reconnect = false");
                return;
            }
            if self.stop.sleep(backoff.next_wait_with_jitter()) {
                return;
            }
        }
    }

    fn connect_and_serve(&self, ups: &mut Rate, on_answer: impl FnMut()) -> Result<Infallible, LinkError> {
        let door = self.dial()?;
        self.stop.hold(door.closer()?);
        debug!(chain = %self.chain.id(), node = %self.name, "connected, waiting for the node to speak");
        let mut link = door.enter()?;
        let peer = link.peer().map(|peer| peer.to_string());
        if let Some(times) = ups.tells(Instant::now()) {
            let peer = peer.as_deref().unwrap_or("-");
            info!(chain = %self.chain.id(), node = %self.name, peer, times, "link up");
        }
        self.stats.link_up(peer);
        self.serve(link.as_mut(), on_answer)
    }

    fn dial(&self) -> Result<Box<dyn Door>, LinkError> {
        link::dial(
            &self.config.address,
            self.identity.as_ref(),
            |host: &str, port| self.resolver.resolve(host, port),
            self.config.timeout,
        )
    }

    fn serve(&self, link: &mut dyn Link, mut on_answer: impl FnMut()) -> Result<Infallible, LinkError> {
        let mut body = Vec::new();
        let mut frame = Vec::new();
        loop {
            link.receive(&mut body)?;
            // A request that arrived before the reading side was closed is still received, but must not be started.
            if self.stop.is_stopping() {
                return Err(LinkError::Closed);
            }
            let begin = Instant::now();
            let (message, event) = answer(self.chain.chain(), &body, self.config.max_height)
                .map_err(|Unanswerable| LinkError::Unanswerable)?;
            assert!(response::fits(&message), "every response fits every node");
            frame.clear();
            message.encode_frame(&mut frame);
            link.send(&frame)?;
            // After the answer, through a queue that drops entries instead of waiting.
            let took = begin.elapsed();
            self.stats.answered(&event, took);
            self.chain.answered(&event);
            match &self.tape {
                Some(tape) => tape.answered(event, took),
                None => event::log(&event, self.chain.id(), &self.name, took),
            }
            on_answer();
        }
    }
}

/// Ends a node's thread from another thread.
#[derive(Default)]
pub struct Stop {
    state: Mutex<StopState>,
    wake: Condvar,
}

#[derive(Default)]
struct StopState {
    stopping: bool,
    closer: Option<Closer>,
}

impl Stop {
    /// Lets the pending request be answered and accepts no new ones.
    pub fn stop(&self) {
        let mut state = self.state();
        state.stopping = true;
        if let Some(closer) = &state.closer {
            closer.close();
        }
        self.wake.notify_all();
    }

    fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Stores the handle of the current connection.
    fn hold(&self, closer: Closer) {
        let mut state = self.state();
        if state.stopping {
            closer.close();
        }
        state.closer = Some(closer);
    }

    fn let_go(&self) {
        self.state().closer = None;
    }

    /// Sleeps for `duration` or until a stop. Returns whether to stop.
    fn sleep(&self, duration: Duration) -> bool {
        let state = self.state();
        let waited = self.wake.wait_timeout_while(state, duration, |state| !state.stopping);
        waited.expect("the lock is never poisoned").0.stopping
    }

    fn state(&self) -> MutexGuard<'_, StopState> {
        lock(&self.state)
    }
}

/// Waits before dialling again. They are short, because a booting node waits three seconds for its signer and exits
/// without one, and have jitter, so that signers spread out. They start again from the first only after an answer to
/// the node: a node that only shakes hands and closes the connection does not deserve a quick redial.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Keeps a node that is down from filling the log: a new reason is logged at once, and again every half minute with its
/// count.
#[derive(Default)]
struct Repeats(Vec<Reason>);

struct Reason {
    text: String,
    logged: Instant,
    /// How often it occurred since.
    times: u32,
}

impl Repeats {
    const AGAIN_AFTER: Duration = Duration::from_secs(30);
    /// More reasons than a link has at one time. The one logged longest ago is dropped.
    const KEPT: usize = 8;

    fn report(&mut self, text: &str, log: impl FnOnce(&str, u32)) {
        let now = Instant::now();
        if let Some(known) = self.0.iter_mut().find(|known| known.text == text) {
            known.times += 1;
            if now.duration_since(known.logged) >= Self::AGAIN_AFTER {
                log(text, known.times);
                (known.logged, known.times) = (now, 0);
            }
            return;
        }
        log(text, 1);
        if self.0.len() == Self::KEPT {
            let oldest = self.0.iter().enumerate().min_by_key(|(_, known)| known.logged).map(|(index, _)| index);
            oldest.map(|index| self.0.swap_remove(index));
        }
        self.0.push(Reason { text: text.to_owned(), logged: now, times: 0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_logged_once_in_half_a_minute_with_its_own_count() {
        let mut repeats = Repeats::default();
        let mut logged = Vec::new();
        let mut report = |repeats: &mut Repeats, text: &str| {
            repeats.report(text, |text, times| logged.push((text.to_owned(), times)));
        };
        for text in ["down", "down", "other", "down", "other"] {
            report(&mut repeats, text);
        }
        // Half a minute later.
        for known in &mut repeats.0 {
            known.logged = known.logged.checked_sub(Repeats::AGAIN_AFTER).unwrap();
        }
        report(&mut repeats, "other");
        report(&mut repeats, "down");
        report(&mut repeats, "down");
        assert_eq!(
            logged,
            [("down", 1), ("other", 1), ("other", 2), ("down", 3)].map(|(text, times)| (text.to_owned(), times))
        );
        for number in 0..100 {
            repeats.report(&number.to_string(), |_, times| assert_eq!(times, 1));
        }
        assert_eq!(repeats.0.len(), Repeats::KEPT);
    }

    #[test]
    fn a_stop_ends_a_sleep_and_closes_later_connections() {
        let stop = Stop::default();
        stop.stop();
        assert!(stop.sleep(Duration::from_secs(60)));
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        stop.hold(Closer::Unix(ours.try_clone().unwrap()));
        assert_eq!(std::io::Read::read(&mut &ours, &mut [0]).unwrap(), 0);
        drop(theirs);
    }
}
