//! What all connections of a broker share: who is connected, who subscribed to what, and the counters.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use daemoneye_lib::proto::{Fault, FaultKind, QoS, Role, Subscribe};
use daemoneye_lib::topic::Pattern;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::queue::Queue;
use super::trie::Trie;
use super::{BrokerOptions, BrokerStreams, BusStats, Notice, Run};
use crate::link::{Outbox, locked};
use crate::quiet::Quiet;
use crate::rpc::Calls;

/// Subscriptions of one connection: a peer selects with patterns, it does not enumerate topics.
pub(super) const MAX_SUBSCRIPTIONS: usize = 64;
/// Subscriptions that are kept for absent subscribers: each may hold 10 MiB.
const MAX_RETAINED: usize = 32;
/// How long an absent at-least-once subscriber's messages are kept: time for a restart, not for a holiday.
const RETAINED_FOR: Duration = Duration::from_secs(300);
/// Notices that wait for the owner.
const WAITING_NOTICES: usize = 1_024;
/// Topics with a shed count of their own per second; further ones are counted in the totals only.
const SHED_TOPICS: usize = 64;

/// A counter.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) admitted: Counter,
    pub(super) refused: Counter,
    pub(super) records: Counter,
    pub(super) messages: Counter,
    pub(super) delivered: Counter,
    pub(super) shed: Counter,
    pub(super) duplicates: Counter,
    pub(super) requests: Counter,
    pub(super) notices_lost: Counter,
}

/// An admitted peer.
pub(super) struct Connection {
    pub(super) id: Arc<str>,
    pub(super) role: Role,
    pub(super) outbox: Arc<Outbox>,
    pub(super) calls: Arc<Calls>,
    /// Stream records that the peer may still send.
    pub(super) credit: AtomicU32,
    /// The most that `credit` can be: an owner that gives back too much must not lift the bound.
    pub(super) full_credit: u32,
    pub(super) ended: CancellationToken,
}

impl Connection {
    /// Gives credit back to the peer.
    pub(super) fn give_credit(&self, records: u32) {
        let room = |credit: u32| records.min(self.full_credit.saturating_sub(credit));
        let raise = |credit: u32| Some(credit + room(credit));
        let before = self.credit.fetch_update(Ordering::AcqRel, Ordering::Acquire, raise).unwrap_or(self.full_credit);
        let given = room(before);
        if given > 0 {
            self.outbox.add_credit(given);
        }
    }

    /// Takes the credit for `records`; false when the peer has sent more than it may.
    pub(super) fn take_credit(&self, records: usize) -> bool {
        let lower = |credit: u32| u32::try_from(records).ok().and_then(|records| credit.checked_sub(records));
        self.credit.fetch_update(Ordering::AcqRel, Ordering::Acquire, lower).is_ok()
    }
}

struct Subscribed {
    pattern: Pattern,
    qos: QoS,
    trie_id: u64,
    queue: Arc<Queue>,
    absent_since: Option<Instant>,
}

pub(super) struct Core {
    pub(super) options: BrokerOptions,
    pub(super) counters: Counters,
    pub(super) shutdown: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) runs: mpsc::Sender<Run>,
    pub(super) quiet: Quiet,
    notices: mpsc::Sender<Notice>,
    trie: RwLock<Trie<Arc<Queue>>>,
    connections: Mutex<HashMap<Arc<str>, Arc<Connection>>>,
    /// Locked after `connections` where both are.
    subscriptions: Mutex<BTreeMap<(Arc<str>, u64), Subscribed>>,
    local: Mutex<HashMap<u64, Arc<Queue>>>,
    shed: Mutex<HashMap<String, u64>>,
    next_id: AtomicU64,
    deliveries: Arc<AtomicU64>,
}

impl Core {
    pub(super) fn new(options: BrokerOptions) -> (Arc<Self>, BrokerStreams) {
        // With credit for every record in it, one collector's runs always find room.
        let (runs, runs_out) = mpsc::channel(usize::try_from(options.credit_records).unwrap_or(1).max(1));
        let (notices, notices_out) = mpsc::channel(WAITING_NOTICES);
        let core = Self {
            options,
            counters: Counters::default(),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runs,
            quiet: Quiet::default(),
            notices,
            trie: RwLock::default(),
            connections: Mutex::default(),
            subscriptions: Mutex::default(),
            local: Mutex::default(),
            shed: Mutex::default(),
            next_id: AtomicU64::new(1),
            deliveries: Arc::default(),
        };
        (Arc::new(core), BrokerStreams { runs: runs_out, notices: notices_out })
    }

    /// A number that was not given out before.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the owner. A notice that must not be lost waits; the others are dropped and counted when the channel is full.
    pub(super) async fn notify(&self, notice: Notice) {
        tokio::select! {
            biased;
            // An owner that has dropped its end does not want notices.
            sent = self.notices.send(notice) => drop(sent),
            () = self.shutdown.cancelled() => {}
        }
    }

    /// Tells the owner if it keeps up.
    pub(super) fn try_notify(&self, notice: Notice) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.notices.try_send(notice) {
            self.counters.notices_lost.add(1);
        }
    }

    // ---- connections ----

    /// Enters a connection; one under the same id is closed: the newer one is the peer that lives.
    pub(super) fn enter(&self, connection: &Arc<Connection>) {
        let mut connections = locked(&self.connections);
        if let Some(older) = connections.insert(Arc::clone(&connection.id), Arc::clone(connection)) {
            older.ended.cancel();
            self.orphan(&connection.id);
        }
        drop(connections);
        self.counters.admitted.add(1);
    }

    /// Takes a connection out, and its subscriptions with it, except those that wait for its return.
    pub(super) fn leave(&self, connection: &Arc<Connection>) {
        let mut connections = locked(&self.connections);
        let current = connections.get(&connection.id).is_some_and(|now| Arc::ptr_eq(now, connection));
        // A successor under the same id has taken its place already.
        if current {
            connections.remove(&connection.id);
            // Before the lock is given back, or the subscriptions of a quick successor would be taken for ours.
            self.orphan(&connection.id);
        }
    }

    pub(super) fn collector(&self, id: &str) -> Option<Arc<Connection>> {
        locked(&self.connections).get(id).filter(|peer| peer.role == Role::Collector).cloned()
    }

    pub(super) fn connected(&self) -> Vec<String> {
        let connections = locked(&self.connections);
        let collectors = connections.values().filter(|peer| peer.role == Role::Collector);
        let mut ids: Vec<String> = collectors.map(|peer| peer.id.to_string()).collect();
        ids.sort();
        ids
    }

    // ---- subscriptions ----

    /// Subscribes a peer, or gives it back what it subscribed under the same numbers before.
    pub(super) fn subscribe(
        &self,
        connection: &Connection,
        wanted: &Subscribe,
        pattern: Pattern,
    ) -> Result<(), Fault> {
        let key = (Arc::clone(&connection.id), wanted.subscription_id);
        let qos = wanted.qos.unwrap_or_default();
        let mut subscriptions = locked(&self.subscriptions);
        if let Some(known) = subscriptions.get_mut(&key)
            && known.pattern == pattern
            && known.qos == qos
        {
            known.absent_since = None;
            known.queue.connect(&connection.outbox, wanted.credit);
            return Ok(());
        }
        if subscriptions.range(all_of(&connection.id)).count() >= MAX_SUBSCRIPTIONS {
            let text = format!("a connection has at most {MAX_SUBSCRIPTIONS} subscriptions: use wildcards");
            return Err(Fault::new(FaultKind::ResourceExhausted, text));
        }
        let queue = Arc::new(Queue::new(wanted.subscription_id, qos, Arc::clone(&self.deliveries)));
        queue.connect(&connection.outbox, wanted.credit);
        let trie_id = self.next_id();
        self.trie_mut().insert(&pattern, trie_id, Arc::clone(&queue));
        let subscribed = Subscribed { pattern, qos, trie_id, queue, absent_since: None };
        if let Some(replaced) = subscriptions.insert(key, subscribed) {
            self.forget(&replaced);
        }
        Ok(())
    }

    pub(super) fn unsubscribe(&self, id: &Arc<str>, subscription_id: u64) {
        if let Some(subscribed) = locked(&self.subscriptions).remove(&(Arc::clone(id), subscription_id)) {
            self.forget(&subscribed);
        }
    }

    /// Credit for one of a peer's subscriptions.
    pub(super) fn grant(&self, id: &Arc<str>, subscription_id: u64, messages: u32) {
        if let Some(subscribed) = locked(&self.subscriptions).get(&(Arc::clone(id), subscription_id)) {
            subscribed.queue.grant(messages);
        }
    }

    /// A peer acknowledges a delivery.
    pub(super) fn ack(&self, id: &Arc<str>, delivery_id: u64) {
        let subscriptions = locked(&self.subscriptions);
        subscriptions.range(all_of(id)).for_each(|(_, subscribed)| subscribed.queue.ack(delivery_id));
    }

    fn forget(&self, subscribed: &Subscribed) {
        self.trie_mut().remove(&subscribed.pattern, subscribed.trie_id);
        subscribed.queue.disconnect();
        let lost = subscribed.queue.messages() as u64;
        if lost > 0 && subscribed.queue.keeps() {
            self.count_shed(subscribed.pattern.as_str(), lost);
        }
    }

    /// The connection of `id` is gone.
    fn orphan(&self, id: &Arc<str>) {
        let mut subscriptions = locked(&self.subscriptions);
        let mut retained = subscriptions.values().filter(|subscribed| subscribed.absent_since.is_some()).count();
        subscriptions.retain(|(owner, _), subscribed| {
            if owner != id {
                return true;
            }
            subscribed.queue.disconnect();
            if !subscribed.queue.keeps() || retained >= MAX_RETAINED {
                self.forget(subscribed);
                return false;
            }
            retained += 1;
            subscribed.absent_since = Some(Instant::now());
            true
        });
    }

    fn expire(&self) {
        locked(&self.subscriptions).retain(|_, subscribed| {
            let expired = subscribed.absent_since.is_some_and(|since| since.elapsed() >= RETAINED_FOR);
            if expired {
                self.forget(subscribed);
            }
            !expired
        });
    }

    pub(super) fn add_local(&self, pattern: &Pattern, qos: QoS) -> (u64, Arc<Queue>) {
        let id = self.next_id();
        let queue = Arc::new(Queue::new(id, qos, Arc::clone(&self.deliveries)));
        if self.shutdown.is_cancelled() {
            queue.close();
        }
        self.trie_mut().insert(pattern, id, Arc::clone(&queue));
        locked(&self.local).insert(id, Arc::clone(&queue));
        (id, queue)
    }

    pub(super) fn remove_local(&self, pattern: &Pattern, id: u64) {
        self.trie_mut().remove(pattern, id);
        locked(&self.local).remove(&id);
    }

    pub(super) fn close_local(&self) {
        locked(&self.local).values().for_each(|queue| queue.close());
    }

    pub(super) fn trie(&self) -> RwLockReadGuard<'_, Trie<Arc<Queue>>> {
        self.trie.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn trie_mut(&self) -> RwLockWriteGuard<'_, Trie<Arc<Queue>>> {
        self.trie.write().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- what was shed ----

    pub(super) fn count_shed(&self, topic: &str, count: u64) {
        self.counters.shed.add(count);
        let mut shed = locked(&self.shed);
        if let Some(known) = shed.get_mut(topic) {
            *known += count;
        } else if shed.len() < SHED_TOPICS {
            shed.insert(topic.to_owned(), count);
        }
    }

    /// Once a second: tells what was shed, and lets go of subscribers that did not come back.
    pub(super) async fn tell_shed(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.expire();
            for (topic, count) in std::mem::take(&mut *locked(&self.shed)) {
                self.try_notify(Notice::Shed { topic, count });
            }
        }
    }

    pub(super) fn stats(&self) -> BusStats {
        let counters = &self.counters;
        let connections = locked(&self.connections).len() as u64;
        let remote = locked(&self.subscriptions).len();
        let local = locked(&self.local).len();
        BusStats {
            connections,
            subscriptions: (remote + local) as u64,
            admitted: counters.admitted.value(),
            refused: counters.refused.value(),
            records: counters.records.value(),
            messages: counters.messages.value(),
            delivered: counters.delivered.value(),
            shed: counters.shed.value(),
            duplicates: counters.duplicates.value(),
            requests: counters.requests.value(),
            notices_lost: counters.notices_lost.value(),
        }
    }
}

/// The keys of everything that `id` subscribed to.
fn all_of(id: &Arc<str>) -> RangeInclusive<(Arc<str>, u64)> {
    (Arc::clone(id), 0)..=(Arc::clone(id), u64::MAX)
}
