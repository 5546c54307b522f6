//! Process identity. A pid is reused; an [`EntityId`] is not.
//!
//! `entity_id` = first 16 bytes of BLAKE3(`daemoneye/process/v1` ‖ len(boot id) as u32 LE ‖ boot id ‖ pid as u32 LE ‖
//! start ticks as u64 LE), shown as 32 hex digits. Start ticks are field 22 of `/proc/<pid>/stat` (clock ticks since boot) on
//! Linux, microseconds since the Unix epoch elsewhere.

use std::fmt;

const DOMAIN: &[u8] = b"daemoneye/process/v1";

/// One process lifetime on one boot of one host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityId([u8; 16]);

impl EntityId {
    /// Derives the identity of (boot, pid, start).
    #[must_use]
    pub fn derive(boot_id: &str, pid: u32, start_ticks: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(DOMAIN);
        let boot = boot_id.as_bytes();
        hasher.update(&u32::try_from(boot.len()).unwrap_or(u32::MAX).to_le_bytes());
        hasher.update(boot);
        hasher.update(&pid.to_le_bytes());
        hasher.update(&start_ticks.to_le_bytes());
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(hasher.finalize().as_bytes()) {
            *to = *from;
        }
        Self(id)
    }

    /// Reads an id from the wire; `None` unless it has exactly 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 16 bytes as they travel.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::hex::encode(&self.0))
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntityId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_pid_is_another_entity() {
        assert_ne!(EntityId::derive("boot", 7, 1), EntityId::derive("boot", 7, 2));
        assert_ne!(EntityId::derive("boot", 7, 1), EntityId::derive("toob", 7, 1));
        assert_eq!(EntityId::derive("boot", 7, 1), EntityId::derive("boot", 7, 1));
    }

    #[test]
    fn the_derivation_is_frozen() {
        // Stored ids and alerts refer to this value; changing it orphans them.
        assert_eq!(
            EntityId::derive("11111111-2222-3333-4444-555555555555", 4242, 987_654).to_string(),
            "5c1490ceefc57ab73bf2b8f71ffac9be"
        );
    }
}
