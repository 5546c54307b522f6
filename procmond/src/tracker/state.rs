//! The tracker's state as bytes, for the checkpoint file. Integers are little-endian.
//!
//! ```text
//! boot id: u16 length, bytes | baseline done: u8 | count: u32 |
//! count × (raised: u8, flags: u8 (1 ended, 2 slim), record: u32 length, protobuf ProcessRecord)
//! ```
//! The dead are not kept: after a restart they are only missed as parents of processes that nobody saw start.

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::ProcessRecord;
use prost::Message;

use super::Tracker;

const ENDED: u8 = 1;
const SLIM: u8 = 2;

/// Why bytes are not a tracker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// They end early, or hold what is no record.
    #[error("the tracker's state is damaged at byte {offset}; it is rebuilt from the log and the next scan")]
    Corrupt {
        /// Where.
        offset: usize,
    },
}

impl Tracker {
    /// The state, between two sweeps.
    #[must_use]
    pub fn export(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let boot = self.boot_id.as_bytes();
        let boot = boot.get(..boot.len().min(usize::from(u16::MAX))).unwrap_or_default();
        out.extend_from_slice(&u16::try_from(boot.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(boot);
        out.push(u8::from(self.baseline_done));
        out.extend_from_slice(&u32::try_from(self.memory.live.len()).unwrap_or(u32::MAX).to_le_bytes());
        for live in self.memory.live.values() {
            out.push(live.raised);
            out.push(u8::from(live.ended) * ENDED + u8::from(live.slim) * SLIM);
            out.extend_from_slice(&u32::try_from(live.record.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(&live.record);
        }
        out
    }

    /// Restores a state into an empty tracker. On another boot everything in it has ended unseen, and the first sweep is a
    /// baseline again.
    ///
    /// # Errors
    /// [`StateError::Corrupt`]; the tracker is then empty.
    pub fn import(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        let mut rest = bytes;
        let restored = self.take_state(&mut rest);
        if restored.is_none() {
            *self = Self::new(&self.source, &self.boot_id, self.memory.limits);
        }
        restored.ok_or(StateError::Corrupt { offset: bytes.len().saturating_sub(rest.len()) })
    }

    fn take_state(&mut self, rest: &mut &[u8]) -> Option<()> {
        let length = u16::from_le_bytes(array(rest)?);
        let same_boot = take(rest, usize::from(length))? == self.boot_id.as_bytes();
        let [baseline_done] = array(rest)?;
        self.baseline_done = same_boot && baseline_done == 1;
        let count = u32::from_le_bytes(array(rest)?);
        for _ in 0..count {
            let [raised, flags] = array(rest)?;
            let length = u32::from_le_bytes(array(rest)?);
            let record = ProcessRecord::decode(take(rest, usize::try_from(length).ok()?)?).ok()?;
            let entity = EntityId::from_bytes(&record.entity_id)?;
            self.memory.store(entity, &record, raised);
            if let Some(live) = self.memory.live_mut(&entity) {
                live.ended = flags & ENDED != 0;
                live.slim |= flags & SLIM != 0;
            }
        }
        rest.is_empty().then_some(())
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take(rest, N)?.try_into().ok()
}
