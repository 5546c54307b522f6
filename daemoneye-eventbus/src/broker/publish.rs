//! Messages and stream runs: checked where they enter, then handed to the owner and to whoever subscribed.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use daemoneye_lib::frame::BUS_LIMIT_BYTES;
use daemoneye_lib::proto::{
    Ack, Correlation, Fault, FaultKind, Heartbeat, Publish, QoS, Record, Sequence, envelope::Body,
};
use daemoneye_lib::topic::{self, Topic};
use prost::Message as _;
use tokio::sync::Semaphore;

use super::core::{Connection, Core};
use super::queue::{Offered, Queue, keeps};
use super::{Delivery, Notice, Run};
use crate::rights::{Verb, may_on};

/// Largest payload with topic and correlation: what a `Deliver` adds around it must still fit into a frame.
const MAX_MESSAGE_BYTES: usize = BUS_LIMIT_BYTES - 1024;
/// Bytes of one collector's runs that wait for the owner; beyond it the collector's connection is not read.
const WAITING_RUN_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a topic: five segments with an id of 64 bytes fit well.
const MAX_TOPIC_BYTES: usize = 256;
/// Topics that a connection's publisher remembers as allowed.
const REMEMBERED_TOPICS: usize = 64;
/// Who publishes what the agent publishes.
const AGENT: &str = "agent";

/// What the broker knows about one peer's publishing.
pub(super) struct Publisher {
    allowed: HashSet<String>,
    last: Option<Sequence>,
    budget: Arc<Semaphore>,
    heartbeat: String,
}

impl Publisher {
    pub(super) fn new(id: &str) -> Self {
        Self {
            allowed: HashSet::new(),
            last: None,
            budget: Arc::new(Semaphore::new(WAITING_RUN_BYTES)),
            heartbeat: Topic::Heartbeat(id.to_owned()).to_string(),
        }
    }

    /// Takes one `Publish`: a run when its records carry sequences, messages when they do not.
    pub(super) async fn take(&mut self, core: &Core, peer: &Connection, publish: Publish) -> Result<(), Fault> {
        if let Some(correlation) = &publish.correlation {
            check_correlation(correlation)?;
        }
        for record in &publish.records {
            self.check_topic(peer, &record.topic)?;
        }
        let sequenced = publish.records.iter().filter(|record| record.sequence.is_some()).count();
        match sequenced {
            0 => self.messages(core, peer, publish),
            all if all == publish.records.len() => self.run(core, peer, publish.records).await,
            _ => Err(invalid("a run has a sequence on every record, a message on none")),
        }
    }

    fn check_topic(&mut self, peer: &Connection, topic: &str) -> Result<(), Fault> {
        if self.allowed.contains(topic) {
            return Ok(());
        }
        check_length(topic)?;
        topic::check(topic).map_err(|error| invalid(&error.to_string()))?;
        if !may_on(peer.role, Verb::Publish, topic, &peer.id) {
            let text = format!("{} {:?} may not publish on {topic}", peer.role.as_str_name(), peer.id);
            return Err(Fault::new(FaultKind::Forbidden, text));
        }
        if self.allowed.len() < REMEMBERED_TOPICS {
            self.allowed.insert(topic.to_owned());
        }
        Ok(())
    }

    async fn run(&mut self, core: &Core, peer: &Connection, records: Vec<Record>) -> Result<(), Fault> {
        let mut last = self.last;
        for record in &records {
            if record.sequence <= last {
                return Err(invalid("the sequences of a stream must grow"));
            }
            last = record.sequence;
        }
        self.last = last;
        if !peer.take_credit(records.len()) {
            return Err(Fault::new(FaultKind::ResourceExhausted, "more records than there was credit for"));
        }
        let bytes: usize = records.iter().map(Record::encoded_len).sum();
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let held = Arc::clone(&self.budget).acquire_many_owned(permits).await.ok();
        core.counters.records.add(records.len() as u64);
        core.route_run(&peer.id, &records);
        let run = Run { collector: Arc::clone(&peer.id), records, _held: held };
        core.runs.send(run).await.map_err(|_| Fault::new(FaultKind::Unavailable, "the agent is shutting down"))
    }

    fn messages(&self, core: &Core, peer: &Connection, publish: Publish) -> Result<(), Fault> {
        let Publish { records, correlation, message_id, .. } = publish;
        let around = correlation.as_ref().map_or(0, Correlation::encoded_len);
        let mut refused = None;
        for record in records {
            if record.encoded_len() + around > MAX_MESSAGE_BYTES {
                return Err(Fault::new(
                    FaultKind::TooLarge,
                    format!("a message has at most {MAX_MESSAGE_BYTES} bytes"),
                ));
            }
            if record.topic == self.heartbeat {
                let heartbeat = Heartbeat::decode(record.payload.clone());
                let heartbeat = heartbeat.map_err(|_| invalid("a heartbeat that is none"))?;
                core.try_notify(Notice::Heartbeat(Box::new(heartbeat)));
            }
            let correlation = correlation.clone();
            let delivery = Delivery { publisher: Arc::clone(&peer.id), record, correlation, message_id };
            if message_id == 0 {
                core.offer_all(delivery);
            } else {
                refused = core.offer_to_all_or_none(delivery).err().or(refused);
            }
        }
        if message_id != 0 {
            let ack = Ack { committed: None, id: message_id, refused };
            // A connection that is closing is not acknowledged; the publisher sends again.
            drop(peer.outbox.send(Body::Ack(ack)));
        }
        Ok(())
    }
}

impl Core {
    /// A message of the agent itself.
    pub(super) fn publish_own(&self, topic: String, payload: Bytes, qos: QoS) {
        // A number lets a subscriber that asked for it tell a message that comes twice.
        let message_id = if keeps(&qos) { self.next_id() } else { 0 };
        let record = Record { sequence: None, topic, time_us: 0, payload };
        let delivery = Delivery { publisher: AGENT.into(), record, correlation: None, message_id };
        if delivery.record.encoded_len() > MAX_MESSAGE_BYTES {
            self.count_shed(&delivery.record.topic, 1);
        } else {
            self.offer_all(delivery);
        }
    }

    fn offer_all(&self, delivery: Delivery) {
        self.counters.messages.add(1);
        let delivery = Arc::new(delivery);
        self.trie().matches(&delivery.record.topic, &mut |queue: &Arc<Queue>| self.offer(queue, &delivery));
    }

    /// Offers an at-least-once message. When a keeping queue has no room for it, nobody gets it, so that the publisher can send
    /// it again without anyone getting it twice.
    fn offer_to_all_or_none(&self, delivery: Delivery) -> Result<(), Fault> {
        let mut full = false;
        self.trie().matches(&delivery.record.topic, &mut |queue: &Arc<Queue>| {
            full |= queue.keeps() && !queue.has_room(&delivery);
        });
        if full {
            let text = format!("a subscriber of {} has no room: send the message again later", delivery.record.topic);
            return Err(Fault::new(FaultKind::ResourceExhausted, text));
        }
        self.offer_all(delivery);
        Ok(())
    }

    fn offer(&self, queue: &Queue, delivery: &Arc<Delivery>) {
        match queue.offer(delivery) {
            Offered::Taken => self.counters.delivered.add(1),
            Offered::Duplicate => self.counters.duplicates.add(1),
            Offered::Shed => self.count_shed(&delivery.record.topic, 1),
        }
    }

    fn route_run(&self, publisher: &Arc<str>, records: &[Record]) {
        let trie = self.trie();
        if trie.is_empty() {
            return;
        }
        for record in records {
            // Made on the first match only: most records of a stream have no subscriber besides the owner.
            let mut delivery: Option<Arc<Delivery>> = None;
            trie.matches(&record.topic, &mut |queue: &Arc<Queue>| {
                let made = delivery.get_or_insert_with(|| {
                    let (publisher, record) = (Arc::clone(publisher), record.clone());
                    Arc::new(Delivery { publisher, record, correlation: None, message_id: 0 })
                });
                self.offer(queue, made);
            });
        }
    }
}

fn invalid(text: &str) -> Fault {
    Fault::new(FaultKind::InvalidRequest, text)
}

/// Refuses a topic or pattern whose mere text would fill a fault or a log line.
pub(super) fn check_length(topic: &str) -> Result<(), Fault> {
    if topic.len() > MAX_TOPIC_BYTES {
        return Err(invalid(&format!("a topic has at most {MAX_TOPIC_BYTES} bytes")));
    }
    Ok(())
}

/// Bounds of the schema: ids 256 bytes, stage 128, 64 tags, key 128, value 1,024.
fn check_correlation(correlation: &Correlation) -> Result<(), Fault> {
    let ids = [&correlation.id, &correlation.parent_id, &correlation.root_id];
    let tag_fits = |tag: &daemoneye_lib::proto::Tag| tag.key.len() <= 128 && tag.value.len() <= 1_024;
    if ids.iter().all(|id| id.len() <= 256)
        && correlation.stage.len() <= 128
        && correlation.tags.len() <= 64
        && correlation.tags.iter().all(tag_fits)
    {
        return Ok(());
    }
    Err(invalid("a correlation has ids of 256 bytes, a stage of 128, and 64 tags of 128 and 1024 bytes at most"))
}
