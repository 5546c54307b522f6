//! The rows that all contestants hold: the generator's, with an executable of its own now and then.

use daemoneye_engine::generate::Generator;
use daemoneye_lib::proto::{ProcessEvent, Record};
use prost::Message as _;

/// 2026-01-31T00:00:00Z.
pub(crate) const START_US: i64 = 1_769_817_600_000_000;
/// Records of one bus message.
pub(crate) const RUN: usize = 1_024;
/// Events of the rare executable, spread over the history: its hash is what an indicator of compromise asks for. The
/// generator's own programs are all common.
const RARE: usize = 5;

/// A seeded stream of events.
pub(crate) struct Events {
    generator: Generator,
    rare_every: u64,
}

impl Events {
    /// A stream of which `rows` will be taken.
    pub(crate) fn new(seed: u64, rows: usize) -> Self {
        Self { generator: Generator::new(seed, START_US), rare_every: (rows / RARE).max(1) as u64 }
    }

    pub(crate) fn rare_hash() -> String {
        "f00d".repeat(16)
    }

    /// The next `count` records, as the bus carries them.
    pub(crate) fn records(&mut self, count: usize) -> Vec<Record> {
        let mut records = self.generator.records(count);
        for record in &mut records {
            let number = record.sequence.as_ref().map_or(1, |sequence| sequence.number);
            if number.is_multiple_of(self.rare_every) {
                let mut event = ProcessEvent::decode(record.payload.clone()).unwrap();
                event.process.as_mut().unwrap().executable_hash = Some(Self::rare_hash());
                record.payload = event.encode_to_vec().into();
            }
        }
        records
    }
}
