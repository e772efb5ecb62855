//! A thread that owns a client: a hang costs its caller a deadline and no more.
//!
//! The crate's sockets wait 20 s, and a stuck connector for ever. A call that has not come back in time is left behind
//! with its thread, which ends when the call does.

use super::client::Client;
use crate::keyring::device::Trouble;
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel},
    },
    thread,
    time::Instant,
};

/// How many calls to one device may hang. There is no use in more, and each holds a thread and a connection.
const HANGING_MAX: usize = 4;

type Call = Box<dyn FnOnce(&Client) + Send>;

/// A client on a thread of its own. The thread ends when this goes, or as soon as the call that it is in returns.
pub struct ClientThread {
    calls: Sender<Call>,
}

/// The threads of all clients to one device.
#[derive(Clone, Default)]
pub struct ThreadBudget(Arc<()>);

impl ThreadBudget {
    fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }

    /// Asks something that needs no client, on a thread that can be left behind.
    pub fn ask<T: Send + 'static>(
        &self,
        deadline: Instant,
        act: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let (sender, answer) = sync_channel(1);
        self.start(move || drop(sender.send(act())))?;
        receive(&answer, deadline)
    }

    fn start(&self, run: impl FnOnce() + Send + 'static) -> Result<(), Trouble> {
        if self.count() >= HANGING_MAX {
            let text = format!("{HANGING_MAX} calls to it hang: restart its yubihsm-connector, or plug it out and in");
            return Err(Trouble::Broken(text.into()));
        }
        let counted = self.clone();
        let run = move || {
            let _counted = counted;
            run();
        };
        let started = thread::Builder::new().name("yubihsm".into()).spawn(run);
        started.map_err(|error| Trouble::Broken(format!("the system gives no thread for it: {error}").into()))?;
        Ok(())
    }
}

impl ClientThread {
    /// Starts a thread that opens a client by `open` and keeps it.
    pub fn open(
        budget: &ThreadBudget,
        deadline: Instant,
        open: impl FnOnce() -> Result<Client, Trouble> + Send + 'static,
    ) -> Result<Self, Trouble> {
        let (calls, queue) = channel::<Call>();
        let (opened, answer) = sync_channel(1);
        budget.start(move || match open() {
            Err(trouble) => drop(opened.send(Err(trouble))),
            // Nobody may wait for it any more.
            Ok(client) => {
                if opened.send(Ok(())).is_ok() {
                    queue.into_iter().for_each(|call| call(&client));
                }
            }
        })?;
        receive(&answer, deadline)?;
        Ok(Self { calls })
    }

    /// Has the client do something. After [`Trouble::Late`] the thread is of no use any more.
    pub fn call<T: Send + 'static>(
        &self,
        deadline: Instant,
        act: impl FnOnce(&Client) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let (sender, answer) = sync_channel(1);
        let call = Box::new(move |client: &Client| drop(sender.send(act(client))));
        self.calls.send(call).map_err(|_| ended())?;
        receive(&answer, deadline)
    }
}

fn receive<T>(answer: &Receiver<Result<T, Trouble>>, deadline: Instant) -> Result<T, Trouble> {
    match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(Trouble::Late),
        Err(RecvTimeoutError::Disconnected) => Err(ended()),
    }
}

fn ended() -> Trouble {
    Trouble::Broken("its thread has ended".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Mutex, time::Duration};

    #[test]
    fn a_hang_costs_a_deadline_and_only_a_few_may_hang_at_once() {
        let budget = ThreadBudget::default();
        let release = Arc::new(Mutex::new(()));
        let held = release.lock().unwrap();
        let hang = || {
            let release = Arc::clone(&release);
            move || {
                drop(release.lock());
                Err(Trouble::Broken("released".into()))
            }
        };
        let patience = Duration::from_millis(30);
        for hanging in 0..HANGING_MAX {
            assert_eq!(budget.count(), hanging);
            let begin = Instant::now();
            assert_eq!(ClientThread::open(&budget, begin + patience, hang()).err(), Some(Trouble::Late));
            assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
        }
        let error = ClientThread::open(&budget, Instant::now() + patience, hang()).err();
        assert!(matches!(&error, Some(Trouble::Broken(text)) if text.contains("4 calls to it hang")), "{error:?}");
        assert_eq!(budget.count(), HANGING_MAX);

        drop(held);
        let deadline = Instant::now() + Duration::from_secs(10);
        while budget.count() > 0 {
            assert!(Instant::now() < deadline, "the threads never ended");
            thread::sleep(Duration::from_millis(2));
        }
        let again = ClientThread::open(&budget, deadline, || Err(Trouble::Broken("asked".into()))).err();
        assert_eq!(again, Some(Trouble::Broken("asked".into())));
    }
}
