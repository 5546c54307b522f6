//! The tracker's state as bytes, for the checkpoint file. Integers are little-endian.
//!
//! ```text
//! boot id: u16 length, bytes | baseline done: u8 | count: u32 |
//! count × (raised: u8, flags: u8 (1 ended, 2 slim, 4 image seen), with flag 4: image: u64,
//!          record: u32 length, protobuf ProcessRecord)
//! ```
//! The dead are not kept: after a restart they are only missed as parents of processes that nobody saw start.

use std::io::{self, Write};

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::ProcessRecord;
use prost::Message;

use super::Tracker;
use super::memory::{Live, Traits};
use crate::collector::Image;

const ENDED: u8 = 1;
const SLIM: u8 = 2;
const IMAGE: u8 = 4;

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
    /// Writes the state, between two sweeps.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn export(&self, out: &mut dyn Write) -> io::Result<()> {
        let boot = self.boot_id.as_bytes();
        let boot = boot.get(..boot.len().min(usize::from(u16::MAX))).unwrap_or_default();
        out.write_all(&u16::try_from(boot.len()).unwrap_or(u16::MAX).to_le_bytes())?;
        out.write_all(boot)?;
        out.write_all(&[u8::from(self.baseline_done)])?;
        out.write_all(&u32::try_from(self.memory.live.len()).unwrap_or(u32::MAX).to_le_bytes())?;
        self.memory.live.values().try_for_each(|live| export_one(live, out))
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
            let image = if flags & IMAGE == 0 { 0 } else { u64::from_le_bytes(array(rest)?) };
            let length = u32::from_le_bytes(array(rest)?);
            let mut record = ProcessRecord::decode(take(rest, usize::try_from(length).ok()?)?).ok()?;
            let entity = EntityId::from_bytes(&record.entity_id)?;
            self.memory.store(entity, &mut record, Traits { raised, image: Image::from_bits(image) });
            if let Some(live) = self.memory.live_mut(&entity) {
                live.ended = flags & ENDED != 0;
                live.slim |= flags & SLIM != 0;
            }
        }
        rest.is_empty().then_some(())
    }
}

fn export_one(live: &Live, out: &mut dyn Write) -> io::Result<()> {
    let image = live.traits.image;
    let seen = image != Image::UNSEEN;
    let flags = u8::from(live.ended) * ENDED + u8::from(live.slim) * SLIM + u8::from(seen) * IMAGE;
    out.write_all(&[live.traits.raised, flags])?;
    if seen {
        out.write_all(&image.bits().to_le_bytes())?;
    }
    let parts = live.kept.parts();
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    out.write_all(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes())?;
    parts.iter().try_for_each(|part| out.write_all(part))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take(rest, N)?.try_into().ok()
}
