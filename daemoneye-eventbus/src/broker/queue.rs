//! One subscription's queue: 1,000 messages and 10 MiB, whichever comes first, unacknowledged ones included.
//!
//! At most once: what does not fit is shed, and what was handed over is forgotten. At least once: a message stays until its
//! acknowledgement, and goes back to the front of the queue when the subscriber's connection ends.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use daemoneye_lib::proto::{Deliver, DeliveryGuarantee, DuplicateHandling, QoS, envelope::Body};
use prost::Message as _;
use tokio::sync::Notify;

use super::Delivery;
use crate::link::{Feed, Outbox, locked};

/// Messages in a queue, waiting and unacknowledged.
pub(crate) const MAX_MESSAGES: usize = 1_000;
/// Bytes in a queue, waiting and unacknowledged.
pub(crate) const MAX_BYTES: usize = 10 * 1024 * 1024;
/// Messages that are remembered to tell duplicates: as many as can be under way.
const REMEMBERED: usize = MAX_MESSAGES;
/// Records in one `Deliver`: a frame's overhead is then below a percent.
const DELIVER_RECORDS: usize = 256;
/// Bytes of one `Deliver` that carries more than one record.
const DELIVER_BYTES: usize = 256 * 1024;
/// What a queued message costs besides its content.
const OVERHEAD_BYTES: usize = 128;

/// What became of an offered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    Taken,
    Duplicate,
    Shed,
}

/// Whether a message is kept until it is acknowledged. Exactly once is at least once here: the consumer's committed watermark
/// does the rest.
pub(crate) fn keeps(qos: &QoS) -> bool {
    matches!(qos.guarantee(), DeliveryGuarantee::AtLeastOnce | DeliveryGuarantee::ExactlyOnce)
}

/// The queue of one subscription.
pub(crate) struct Queue {
    subscription_id: u64,
    keep: bool,
    duplicates: DuplicateHandling,
    /// Shared by all queues of a broker: an acknowledgement names a delivery and no subscription.
    deliveries: Arc<AtomicU64>,
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<Delivery>>,
    unacked: VecDeque<(u64, Vec<Arc<Delivery>>)>,
    messages: usize,
    bytes: usize,
    credit: u32,
    seen: Seen,
    outbox: Option<Arc<Outbox>>,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(subscription_id: u64, qos: QoS, deliveries: Arc<AtomicU64>) -> Self {
        let (keep, duplicates) = (keeps(&qos), qos.duplicates());
        Self { subscription_id, keep, duplicates, deliveries, state: Mutex::default(), ready: Notify::new() }
    }

    /// Whether messages are kept until they are acknowledged.
    pub(crate) const fn keeps(&self) -> bool {
        self.keep
    }

    /// Whether a message of this size fits now.
    pub(crate) fn has_room(&self, delivery: &Delivery) -> bool {
        locked(&self.state).has_room(cost(delivery))
    }

    /// Takes a message in, if it fits and is no duplicate.
    pub(crate) fn offer(&self, delivery: &Arc<Delivery>) -> Offered {
        let mut state = locked(&self.state);
        if self.duplicates == DuplicateHandling::Drop && state.seen.contains(delivery) {
            return Offered::Duplicate;
        }
        if self.duplicates == DuplicateHandling::Merge && state.merge(delivery) {
            return Offered::Duplicate;
        }
        let cost = cost(delivery);
        if !state.has_room(cost) {
            return Offered::Shed;
        }
        if self.duplicates == DuplicateHandling::Drop {
            state.seen.remember(delivery);
        }
        state.messages += 1;
        state.bytes += cost;
        state.waiting.push_back(Arc::clone(delivery));
        self.ready.notify_one();
        if state.credit > 0
            && let Some(outbox) = &state.outbox
        {
            outbox.wake();
        }
        Offered::Taken
    }

    /// The subscriber's connection, from now on.
    pub(crate) fn connect(self: &Arc<Self>, outbox: &Arc<Outbox>, credit: u32) {
        // An earlier connection must not take from the queue any more.
        self.disconnect();
        let mut state = locked(&self.state);
        state.credit = credit;
        state.outbox = Some(Arc::clone(outbox));
        drop(state);
        outbox.attach(Arc::clone(self) as Arc<dyn Feed>);
    }

    /// The connection is gone; what was not acknowledged waits again, in its order.
    pub(crate) fn disconnect(self: &Arc<Self>) {
        let outbox = locked(&self.state).outbox.take();
        if let Some(outbox) = outbox {
            outbox.detach(&(Arc::clone(self) as Arc<dyn Feed>));
        }
        // Only now: a write that was under way may just have taken a message.
        let mut state = locked(&self.state);
        state.requeue();
        state.credit = 0;
    }

    /// The subscriber takes `messages` more.
    pub(crate) fn grant(&self, messages: u32) {
        let mut state = locked(&self.state);
        state.credit = state.credit.saturating_add(messages);
        if let Some(outbox) = &state.outbox {
            outbox.wake();
        }
    }

    /// Forgets an acknowledged delivery.
    pub(crate) fn ack(&self, delivery_id: u64) {
        let mut state = locked(&self.state);
        if let Some(at) = state.unacked.iter().position(|(id, _)| *id == delivery_id)
            && let Some((_, deliveries)) = state.unacked.remove(at)
        {
            deliveries.iter().for_each(|delivery| state.release(delivery));
        }
    }

    /// The next message for a subscriber in this process; `None` after [`Self::close`].
    pub(crate) async fn receive(&self) -> Option<Arc<Delivery>> {
        loop {
            {
                let mut state = locked(&self.state);
                if let Some(delivery) = state.waiting.pop_front() {
                    state.release(&delivery);
                    return Some(delivery);
                }
                if state.closed {
                    return None;
                }
            }
            self.ready.notified().await;
        }
    }

    /// Nothing will come any more.
    pub(crate) fn close(&self) {
        locked(&self.state).closed = true;
        self.ready.notify_one();
    }

    /// Messages that are lost when this queue is dropped now.
    pub(crate) fn messages(&self) -> usize {
        locked(&self.state).messages
    }
}

impl Feed for Queue {
    fn next(&self) -> Option<Body> {
        let mut state = locked(&self.state);
        let deliveries = state.batch();
        let first = deliveries.first()?;
        let mut deliver = Deliver {
            subscription_id: self.subscription_id,
            delivery_id: 0,
            publisher: first.publisher.to_string(),
            records: deliveries.iter().map(|delivery| delivery.record.clone()).collect(),
            correlation: first.correlation.clone(),
        };
        if self.keep {
            deliver.delivery_id = self.deliveries.fetch_add(1, Ordering::Relaxed) + 1;
            state.unacked.push_back((deliver.delivery_id, deliveries));
        } else {
            deliveries.iter().for_each(|delivery| state.release(delivery));
        }
        Some(Body::Deliver(deliver))
    }
}

impl State {
    const fn has_room(&self, cost: usize) -> bool {
        self.messages < MAX_MESSAGES && self.bytes + cost <= MAX_BYTES
    }

    fn release(&mut self, delivery: &Delivery) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(cost(delivery));
    }

    /// As many waiting messages as one frame and the credit hold: of one publisher, and alone if it carries a correlation.
    fn batch(&mut self) -> Vec<Arc<Delivery>> {
        let mut batch: Vec<Arc<Delivery>> = Vec::new();
        let mut bytes = 0;
        while self.credit > 0 && batch.len() < DELIVER_RECORDS {
            let Some(next) = self.waiting.front() else { break };
            if let Some(first) = batch.first()
                && (bytes + cost(next) > DELIVER_BYTES || !same_frame(first, next))
            {
                break;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            bytes += cost(&next);
            self.credit -= 1;
            batch.push(next);
        }
        batch
    }

    fn requeue(&mut self) {
        while let Some((_, deliveries)) = self.unacked.pop_back() {
            for delivery in deliveries.into_iter().rev() {
                self.waiting.push_front(delivery);
            }
        }
    }

    /// Replaces a waiting message of the same publisher and topic: the newest state is the one that counts.
    fn merge(&mut self, delivery: &Arc<Delivery>) -> bool {
        let fits = |state: &Self, old: &Delivery| state.bytes - cost(old) + cost(delivery) <= MAX_BYTES;
        let same = |old: &Delivery| old.publisher == delivery.publisher && old.record.topic == delivery.record.topic;
        let Some(at) = self.waiting.iter().rposition(|old| same(old)) else { return false };
        match self.waiting.get(at) {
            Some(old) if fits(self, old) => self.bytes = self.bytes - cost(old) + cost(delivery),
            _ => return false,
        }
        if let Some(slot) = self.waiting.get_mut(at) {
            *slot = Arc::clone(delivery);
        }
        true
    }
}

fn same_frame(first: &Delivery, next: &Delivery) -> bool {
    first.publisher == next.publisher && first.correlation.is_none() && next.correlation.is_none()
}

fn cost(delivery: &Delivery) -> usize {
    let correlation = delivery.correlation.as_ref().map_or(0, |correlation| correlation.encoded_len());
    delivery.record.payload.len() + delivery.record.topic.len() + correlation + OVERHEAD_BYTES
}

/// The identity of a message: whose it is, and its sequence or number.
type Identity = (Arc<str>, u64, u64);

/// The last messages that were taken, to tell duplicates.
#[derive(Default)]
struct Seen {
    order: VecDeque<Identity>,
    set: HashSet<Identity>,
}

impl Seen {
    /// `None` for a message without a number: two of them are two messages.
    fn identity(delivery: &Delivery) -> Option<Identity> {
        match &delivery.record.sequence {
            Some(sequence) => Some((Arc::clone(&delivery.publisher), sequence.epoch, sequence.number)),
            None if delivery.message_id != 0 => Some((Arc::clone(&delivery.publisher), u64::MAX, delivery.message_id)),
            None => None,
        }
    }

    fn contains(&self, delivery: &Delivery) -> bool {
        Self::identity(delivery).is_some_and(|identity| self.set.contains(&identity))
    }

    fn remember(&mut self, delivery: &Delivery) {
        let Some(identity) = Self::identity(delivery) else { return };
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
        self.set.insert(identity.clone());
        self.order.push_back(identity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_lib::proto::Record;

    fn message(topic: &str, payload: &[u8], message_id: u64) -> Arc<Delivery> {
        Arc::new(Delivery {
            publisher: "a".into(),
            record: Record { topic: topic.into(), payload: payload.to_vec().into(), ..Record::default() },
            correlation: None,
            message_id,
        })
    }

    fn queue(guarantee: DeliveryGuarantee, duplicates: DuplicateHandling) -> Queue {
        let qos = QoS { guarantee: guarantee.into(), duplicates: duplicates.into() };
        let queue = Queue::new(1, qos, Arc::default());
        queue.grant(u32::MAX);
        queue
    }

    fn delivered(queue: &Queue) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(Body::Deliver(deliver)) = queue.next() {
            all.extend(deliver.records.iter().map(|record| (deliver.delivery_id, record.payload.to_vec())));
        }
        all
    }

    #[test]
    fn the_thousand_and_first_message_is_shed() {
        let queue = queue(DeliveryGuarantee::AtMostOnce, DuplicateHandling::Allow);
        let offered: Vec<Offered> = (0..1_001).map(|_| queue.offer(&message("a", b"x", 0))).collect();
        assert!(offered[..1_000].iter().all(|one| *one == Offered::Taken));
        assert_eq!(offered[1_000], Offered::Shed);
        assert_eq!(delivered(&queue).len(), 1_000);
        assert_eq!(queue.offer(&message("a", b"x", 0)), Offered::Taken, "room again");
    }

    #[test]
    fn ten_mebibytes_are_the_bound_before_a_thousand_messages_are() {
        let queue = queue(DeliveryGuarantee::AtMostOnce, DuplicateHandling::Allow);
        let big = vec![0; 1_000_000];
        let taken = (0..20).filter(|_| queue.offer(&message("a", &big, 0)) == Offered::Taken).count();
        assert_eq!(taken, 10);
    }

    #[test]
    fn an_unacknowledged_message_comes_again_first_and_in_order() {
        let queue = Arc::new(queue(DeliveryGuarantee::AtLeastOnce, DuplicateHandling::Allow));
        queue.offer(&message("a", b"1", 0));
        assert_eq!(delivered(&queue), [(1, b"1".to_vec())]);
        queue.offer(&message("a", b"2", 0));
        assert_eq!(delivered(&queue), [(2, b"2".to_vec())]);
        queue.ack(1);
        queue.offer(&message("a", b"3", 0));
        queue.disconnect();
        queue.grant(10);
        assert_eq!(delivered(&queue), [(3, b"2".to_vec()), (3, b"3".to_vec())]);
        queue.ack(3);
        assert_eq!(queue.messages(), 0);
    }

    #[test]
    fn unacknowledged_messages_count_against_the_bound() {
        let queue = queue(DeliveryGuarantee::AtLeastOnce, DuplicateHandling::Allow);
        for _ in 0..1_000 {
            queue.offer(&message("a", b"x", 0));
        }
        assert_eq!(delivered(&queue).len(), 1_000);
        assert_eq!(queue.offer(&message("a", b"x", 0)), Offered::Shed);
    }

    #[test]
    fn drop_forgets_a_repeated_number_and_merge_keeps_the_newest_state() {
        let dropping = queue(DeliveryGuarantee::AtMostOnce, DuplicateHandling::Drop);
        assert_eq!(dropping.offer(&message("a", b"1", 7)), Offered::Taken);
        assert_eq!(dropping.offer(&message("a", b"1", 7)), Offered::Duplicate);
        assert_eq!(dropping.offer(&message("a", b"2", 0)), Offered::Taken);
        assert_eq!(dropping.offer(&message("a", b"2", 0)), Offered::Taken, "without a number they are two");

        let merging = queue(DeliveryGuarantee::AtMostOnce, DuplicateHandling::Merge);
        merging.offer(&message("a", b"old", 1));
        merging.offer(&message("b", b"other", 2));
        assert_eq!(merging.offer(&message("a", b"new", 3)), Offered::Duplicate);
        let payloads: Vec<Vec<u8>> = delivered(&merging).into_iter().map(|(_, payload)| payload).collect();
        assert_eq!(payloads, [b"new".to_vec(), b"other".to_vec()]);
    }

    #[test]
    fn nothing_is_delivered_beyond_the_credit() {
        let queue = Queue::new(1, QoS::default(), Arc::default());
        queue.grant(3);
        for _ in 0..5 {
            queue.offer(&message("a", b"x", 0));
        }
        assert_eq!(delivered(&queue).len(), 3);
        queue.grant(1);
        assert_eq!(delivered(&queue).len(), 1);
    }
}
