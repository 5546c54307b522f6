//! How records are kept: encoded, and in two parts. What siblings have in common (parent, program, owner, place) is kept once
//! for all of them; a record takes about 150 bytes of its own then instead of a kilobyte.
//!
//! Parts of one protobuf message that stand one behind the other are that message, so nothing is decoded to write a record
//! down.

use std::collections::HashMap;
use std::sync::Arc;

use daemoneye_lib::proto::ProcessRecord;
use prost::Message;

/// Bytes that a common part costs beside its contents: slot, reference counts and allocation header.
const COMMON_BYTES: usize = 64;

type Part = Arc<[u8]>;

/// One record.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    own: Part,
    common: Part,
}

impl Kept {
    pub(super) fn decoded(&self) -> Option<ProcessRecord> {
        let mut record = ProcessRecord::decode(self.own.as_ref()).ok()?;
        record.merge(self.common.as_ref()).ok()?;
        Some(record)
    }

    /// One encoded record, in the order in which the parts are to be written.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [&self.own, &self.common]
    }

    /// Bytes of the whole record.
    pub(super) fn bytes(&self) -> usize {
        self.own.len().saturating_add(self.common.len())
    }

    /// Bytes that only this record takes.
    pub(super) fn own_bytes(&self) -> usize {
        self.own.len()
    }
}

/// A record on its way to be kept.
pub(super) struct Parts {
    own: Vec<u8>,
    common: Vec<u8>,
}

impl Parts {
    /// Bytes of the whole record.
    pub(super) const fn bytes(&self) -> usize {
        self.own.len().saturating_add(self.common.len())
    }

    /// Encodes a record; it is changed meanwhile and left as it was.
    pub(super) fn of(record: &mut ProcessRecord) -> Self {
        let mut common = ProcessRecord::default();
        exchange(record, &mut common);
        let parts = Self { own: record.encode_to_vec(), common: common.encode_to_vec() };
        exchange(record, &mut common);
        parts
    }
}

fn exchange(record: &mut ProcessRecord, common: &mut ProcessRecord) {
    macro_rules! exchange {
        ($($field:ident),+) => { $(std::mem::swap(&mut record.$field, &mut common.$field);)+ };
    }
    exchange!(ppid, parent_entity_id, parent_name, parent_executable_path, parent_command_line);
    exchange!(executable_path, exec_filename, cwd, uid, gid, euid, user, session, tty);
    exchange!(cgroup, container_id, pid_namespace, ancestry, executable_hash, hash_algorithm, hash_status);
}

/// The common parts, each with the number of records that hold it.
#[derive(Default)]
pub(super) struct Shelf {
    common: HashMap<Part, u32>,
    bytes: usize,
}

impl Shelf {
    /// Bytes of all common parts.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that keeping these parts would add.
    pub(super) fn wanted(&self, parts: &Parts) -> usize {
        let known = self.common.contains_key(parts.common.as_slice());
        parts.own.len().saturating_add(if known { 0 } else { cost(&parts.common) })
    }

    pub(super) fn keep(&mut self, parts: Parts) -> Kept {
        let own = parts.own.into();
        let known = self.common.get_key_value(parts.common.as_slice()).map(|(common, _)| Part::clone(common));
        let common = known.unwrap_or_else(|| {
            self.bytes = self.bytes.saturating_add(cost(&parts.common));
            parts.common.into()
        });
        let holders = self.common.entry(Part::clone(&common)).or_default();
        *holders = holders.saturating_add(1);
        Kept { own, common }
    }

    /// One record is held no more.
    pub(super) fn release(&mut self, kept: &Kept) {
        let Some(holders) = self.common.get_mut(&kept.common) else { return };
        *holders = holders.saturating_sub(1);
        if *holders == 0 {
            self.common.remove(&kept.common);
            self.bytes = self.bytes.saturating_sub(cost(&kept.common));
        }
    }
}

const fn cost(common: &[u8]) -> usize {
    common.len().saturating_add(COMMON_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pid: u32) -> ProcessRecord {
        ProcessRecord {
            pid,
            ppid: Some(1),
            name: "worker".into(),
            executable_path: Some("/usr/bin/worker".into()),
            arg_lengths: vec![6, pid],
            parent_command_line: Some("master".into()),
            truncated: vec!["cgroup".into()],
            ..Default::default()
        }
    }

    #[test]
    fn a_record_comes_back_whole_from_its_parts() {
        let mut shelf = Shelf::default();
        let mut given = record(7);
        let kept = shelf.keep(Parts::of(&mut given));
        assert_eq!(given, record(7), "encoding leaves it as it was");
        assert_eq!(kept.decoded(), Some(record(7)));
        assert_eq!(ProcessRecord::decode(kept.parts().concat().as_slice()).unwrap(), record(7));
    }

    #[test]
    fn what_siblings_share_is_kept_once_and_goes_with_the_last_of_them() {
        let mut shelf = Shelf::default();
        let first = shelf.keep(Parts::of(&mut record(7)));
        let bytes = shelf.bytes();
        let parts = Parts::of(&mut record(8));
        assert_eq!(shelf.wanted(&parts), parts.own.len());
        let second = shelf.keep(parts);
        assert_eq!(shelf.bytes(), bytes);
        shelf.release(&first);
        assert_eq!(shelf.bytes(), bytes);
        shelf.release(&second);
        assert_eq!((shelf.bytes(), shelf.common.len()), (0, 0));
    }
}
