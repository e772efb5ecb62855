//! Queues from the threads that answer to the threads that write: one for each chain, each with separate room for
//! signatures.
//!
//! Putting an item in never waits for the thread that takes it out, so a lane can fill up. A flood on one chain then
//! costs the other chains nothing, and refusals cost no signature its line. Items that do not fit are counted in their
//! lane.

use crate::process::lock::lock;
use highwater_core::consensus::ChainId;
use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, Thread},
    time::Duration,
};

/// The kind of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A new signature has left.
    Signed,
    /// Anything else: a refusal, or an answer that repeats an earlier one.
    Other,
}

impl Kind {
    /// Both kinds, in the order of [`Lost`].
    pub(crate) const ALL: [Self; 2] = [Self::Signed, Self::Other];

    /// Its label in the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Other => "other",
        }
    }
}

/// The number of lost items of each [`Kind`].
pub(crate) type Lost = [u64; 2];

/// How many items of each kind a lane can hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// For new signatures only.
    pub signed: usize,
    pub other: usize,
}

impl Room {
    fn of(self, kind: Kind) -> usize {
        match kind {
            Kind::Signed => self.signed,
            Kind::Other => self.other,
        }
    }
}

/// Items in the order in which they were put in.
pub(crate) type Items<T> = VecDeque<(Kind, T)>;

/// The queue of one chain. Only the chain's own nodes and the emptying thread take its lock, and only for a moment.
pub(crate) struct Lane<T> {
    chain: ChainId,
    room: Room,
    waiting: Mutex<Waiting<T>>,
    lost: [AtomicU64; 2],
    wake: Arc<Wake>,
}

struct Waiting<T> {
    items: Items<T>,
    counts: [usize; 2],
}

impl<T> Lane<T> {
    fn new(chain: ChainId, room: Room, wake: Arc<Wake>) -> Self {
        // All memory that the lane ever needs: putting an item in allocates nothing.
        let items = VecDeque::with_capacity(room.signed + room.other);
        Self { chain, room, waiting: Mutex::new(Waiting { items, counts: [0; 2] }), lost: Default::default(), wake }
    }

    #[cfg(test)]
    fn chain(&self) -> &ChainId {
        &self.chain
    }

    /// Puts an item in, or counts it as lost if there is no room.
    pub(crate) fn put(&self, kind: Kind, item: T) {
        let mut waiting = self.waiting();
        let has_room = waiting.counts[kind as usize] < self.room.of(kind);
        if has_room {
            waiting.counts[kind as usize] += 1;
            waiting.items.push_back((kind, item));
        }
        drop(waiting);
        if has_room {
            self.wake.up();
        } else {
            self.lose(kind, 1);
        }
    }

    /// Counts items as lost that were taken out already.
    pub(crate) fn lose(&self, kind: Kind, count: u64) {
        self.lost[kind as usize].fetch_add(count, Relaxed);
    }

    pub(crate) fn lost(&self) -> Lost {
        self.lost.each_ref().map(|lost| lost.load(Relaxed))
    }

    /// Swaps the waiting items with `empty`.
    fn take(&self, empty: &mut Items<T>) {
        empty.reserve(self.room.signed + self.room.other);
        let mut waiting = self.waiting();
        mem::swap(&mut waiting.items, empty);
        waiting.counts = [0; 2];
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
        lock(&self.waiting)
    }
}

/// The lanes of all chains, and the one thread that empties them. Cheap to clone.
pub(crate) struct Lanes<T>(Arc<Shared<T>>);

struct Shared<T> {
    room: Room,
    lanes: Mutex<BTreeMap<ChainId, Arc<Lane<T>>>>,
    wake: Arc<Wake>,
    /// Threads that wait in [`Lanes::flush`].
    flushes: Mutex<Vec<SyncSender<()>>>,
}

impl<T> Clone for Lanes<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Lanes<T> {
    pub(crate) fn new(room: Room) -> Self {
        Self(Arc::new(Shared { room, lanes: Mutex::default(), wake: Arc::default(), flushes: Mutex::default() }))
    }

    /// The lane of a chain, made on the first call.
    pub(crate) fn lane(&self, chain: &ChainId) -> Arc<Lane<T>> {
        let mut lanes = self.lanes();
        if let Some(lane) = lanes.get(chain) {
            return Arc::clone(lane);
        }
        let lane = Arc::new(Lane::new(chain.clone(), self.0.room, Arc::clone(&self.0.wake)));
        lanes.insert(chain.clone(), Arc::clone(&lane));
        lane
    }

    pub(crate) fn lost(&self) -> Vec<(ChainId, Lost)> {
        self.lanes().values().map(|lane| (lane.chain.clone(), lane.lost())).collect()
    }

    pub(crate) fn wake(&self) {
        self.0.wake.up();
    }

    /// Waits until all items so far are taken out and processed, at most for `patience`.
    pub(crate) fn flush(&self, patience: Duration) {
        let (done, flushed) = sync_channel(1);
        self.flushes().push(done);
        self.wake();
        let _ = flushed.recv_timeout(patience);
    }

    /// For the emptying thread: the waiting flushes, to [`answer`] once all items so far are processed.
    pub(crate) fn asked_to_flush(&self) -> Vec<SyncSender<()>> {
        mem::take(&mut *self.flushes())
    }

    /// For the emptying thread: waits until there is an item or a flush, or `or` returns true, or the time is over.
    pub(crate) fn wait(&self, at_most: Duration, or: impl Fn() -> bool) {
        self.0.wake.sleep_unless(|| self.has_items() || !self.flushes().is_empty() || or(), at_most);
    }

    fn has_items(&self) -> bool {
        self.lanes().values().any(|lane| !lane.waiting().items.is_empty())
    }

    /// For the emptying thread: takes out all items, one chain after the other.
    pub(crate) fn take(&self, spare: &mut Items<T>, mut each: impl FnMut(&Arc<Lane<T>>, Kind, T)) {
        // Not under the lock: nobody may wait for it while items are processed.
        let lanes: Vec<_> = self.lanes().values().map(Arc::clone).collect();
        for lane in lanes {
            lane.take(spare);
            for (kind, item) in spare.drain(..) {
                each(&lane, kind, item);
            }
        }
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<ChainId, Arc<Lane<T>>>> {
        lock(&self.0.lanes)
    }

    fn flushes(&self) -> MutexGuard<'_, Vec<SyncSender<()>>> {
        lock(&self.0.flushes)
    }
}

/// For the emptying thread: ends the wait of these flushes.
pub(crate) fn answer(flushes: Vec<SyncSender<()>>) {
    for flush in flushes {
        // The other side is gone if it has waited long enough.
        let _ = flush.try_send(());
    }
}

/// Wakes the emptying thread. Costs a system call only if that thread sleeps.
#[derive(Default)]
struct Wake {
    asleep: AtomicBool,
    sleeper: OnceLock<Thread>,
}

impl Wake {
    fn up(&self) {
        if self.asleep.load(SeqCst)
            && self.asleep.swap(false, SeqCst)
            && let Some(sleeper) = self.sleeper.get()
        {
            sleeper.unpark();
        }
    }

    fn sleep_unless(&self, ready: impl Fn() -> bool, at_most: Duration) {
        self.sleeper.get_or_init(thread::current);
        // Set before `ready` is called: a thread that puts an item in after that call sees it.
        self.asleep.store(true, SeqCst);
        if !ready() {
            thread::park_timeout(at_most);
        }
        self.asleep.store(false, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { signed: 3, other: 2 };

    fn all(lanes: &Lanes<u32>) -> Vec<(String, u32)> {
        let mut taken = Vec::new();
        lanes.take(&mut VecDeque::new(), |lane, _, item| taken.push((lane.chain().to_string(), item)));
        taken
    }

    #[test]
    fn what_floods_a_lane_costs_neither_the_others_nor_what_was_signed_in_it() {
        let lanes = Lanes::new(ROOM);
        let [flooded, calm] = ["a", "b"].map(|chain| lanes.lane(&ChainId::new(chain).unwrap()));
        (0..1000).for_each(|number| flooded.put(Kind::Other, number));
        (2000..2003).for_each(|number| flooded.put(Kind::Signed, number));
        calm.put(Kind::Other, 7);
        calm.put(Kind::Signed, 8);
        let expected = [("a", 0), ("a", 1), ("a", 2000), ("a", 2001), ("a", 2002), ("b", 7), ("b", 8)];
        assert_eq!(all(&lanes), expected.map(|(chain, item)| (chain.to_owned(), item)));
        let ids = ["a", "b"].map(|chain| ChainId::new(chain).unwrap());
        assert_eq!(lanes.lost(), ids.into_iter().zip([[0, 998], [0, 0]]).collect::<Vec<_>>());
        // There is room again, and items that still do not fit are counted under their own kind.
        (0..4).for_each(|number| flooded.put(Kind::Signed, number));
        assert_eq!((all(&lanes).len(), flooded.lost()), (3, [1, 998]));
    }

    #[test]
    fn putting_in_takes_no_memory() {
        let lanes = Lanes::new(ROOM);
        let lane = lanes.lane(&ChainId::new("a").unwrap());
        let mut spare = VecDeque::new();
        for _ in 0..3 {
            assert!(lane.waiting().items.capacity() >= ROOM.signed + ROOM.other);
            lane.put(Kind::Other, 1);
            lanes.take(&mut spare, |_, _, _| ());
        }
    }

    #[test]
    fn a_sleeper_is_woken_by_an_item_and_by_a_flush() {
        let lanes: Lanes<u32> = Lanes::new(ROOM);
        let lane = lanes.lane(&ChainId::new("a").unwrap());
        let (seen, items) = sync_channel(100);
        let emptied = lanes.clone();
        thread::spawn(move || {
            loop {
                emptied.wait(Duration::from_secs(3600), || false);
                let flushes = emptied.asked_to_flush();
                emptied.take(&mut VecDeque::new(), |_, _, item| seen.send(item).unwrap());
                answer(flushes);
            }
        });
        for number in 0..100 {
            lane.put(Kind::Signed, number);
            assert_eq!(items.recv_timeout(Duration::from_secs(20)), Ok(number));
        }
        lane.put(Kind::Other, 100);
        lanes.flush(Duration::from_secs(20));
        assert_eq!(items.try_recv(), Ok(100), "it was dealt with before the flush was over");
    }
}
