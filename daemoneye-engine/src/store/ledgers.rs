//! How far the ledger of each collector had come when the agent last heard of it.
//!
//! A ledger only grows, and what is acknowledged was synced. One that has less than it had, or another entry at a place, was put back to an
//! older copy or begun anew. Its writer cannot know: what it would know it by was put back as well. So the store remembers, says so
//! once for each time, and goes on from where the ledger is then.

use std::fmt;

use daemoneye_lib::hex;
use daemoneye_lib::ledger::Hash;
use redb::{ReadableTable as _, ReadableTableMetadata as _, WriteTransaction};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::state::LEDGERS;
use super::value::Record;
use super::{Store, StoreError, audit};

/// Collectors whose ledgers are remembered: there is one for each kind, and nobody may fill the store with names.
const KEEPERS: u64 = 64;
/// Bytes of a hash that are shown: enough to tell two entries apart.
const SHOWN_BYTES: usize = 8;

/// How far a ledger had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerMark {
    /// Entries.
    pub entries: u64,
    /// Hash of the last one.
    pub hash: Hash,
}

impl LedgerMark {
    /// As a collector tells it, its hash in hex; `None`: it tells of none.
    #[must_use]
    pub fn told(entries: u64, hash: &str) -> Option<Self> {
        let hash: Hash = hex::decode(hash)?.try_into().ok()?;
        Some(Self { entries, hash })
    }
}

impl fmt::Display for LedgerMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.hash.get(..SHOWN_BYTES).unwrap_or(&self.hash);
        write!(f, "{} entries, the last of them {}", self.entries, hex::encode(shown))
    }
}

/// A ledger is not the one that it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerFall {
    /// The collector that keeps it.
    pub keeper: String,
    /// How far it had come.
    pub had: LedgerMark,
    /// As it was when it was next heard of.
    pub has: LedgerMark,
    /// When that was, µs since the Unix epoch.
    pub at_us: i64,
    /// An alert was raised.
    pub is_raised: bool,
}

impl LedgerFall {
    /// Both figures, as entries and answers have them.
    #[must_use]
    pub fn told(&self) -> Value {
        json!({
            "collector": self.keeper,
            "had_entries": self.had.entries,
            "had_hash": hex::encode(&self.had.hash),
            "has_entries": self.has.entries,
            "has_hash": hex::encode(&self.has.hash),
            "fell_us": self.at_us,
        })
    }
}

impl fmt::Display for LedgerFall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keeper, had, has, .. } = self;
        let how = if has.entries < had.entries { "lost entries" } else { "is not the one that it was" };
        write!(f, "the ledger of {keeper} {how}: it had {had}, and when it was next heard of it had {has}")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LedgerRow {
    mark: LedgerMark,
    fall: Option<FallRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FallRow {
    had: LedgerMark,
    has: LedgerMark,
    at_us: i64,
    is_raised: bool,
}

impl Record for LedgerRow {
    const NAME: &'static str = "ledgers";
}

fn row(transaction: &WriteTransaction, keeper: &str) -> Result<Option<LedgerRow>, StoreError> {
    transaction.open_table(LEDGERS)?.get(keeper)?.map(|row| row.value().decode()).transpose()
}

fn keep(transaction: &WriteTransaction, keeper: &str, row: &LedgerRow) -> Result<(), StoreError> {
    let mut ledgers = transaction.open_table(LEDGERS)?;
    if ledgers.get(keeper)?.is_some() || ledgers.len()? < KEEPERS {
        ledgers.insert(keeper, row.encode()?)?;
    }
    Ok(())
}

/// Takes note of how far a ledger has come, unless that is known already.
fn reach(transaction: &WriteTransaction, keeper: &str, mark: LedgerMark) -> Result<(), StoreError> {
    let before = row(transaction, keeper)?;
    if before.as_ref().is_some_and(|before| before.mark.entries >= mark.entries) {
        return Ok(());
    }
    keep(transaction, keeper, &LedgerRow { mark, fall: before.and_then(|before| before.fall) })
}

impl Store {
    /// How far the ledger of a collector had come.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn ledger_mark(&self, keeper: &str) -> Result<Option<LedgerMark>, StoreError> {
        let transaction = self.state.read()?;
        let row = transaction.open_table(LEDGERS)?.get(keeper)?.map(|row| row.value().decode()).transpose()?;
        Ok(row.map(|row: LedgerRow| row.mark))
    }

    /// Hears how far the ledger of a collector that has connected has come. `at_mark`: how its files have the entry that was its last
    /// one when it was heard of before; `None` where they have none or cannot be read. Whether it is not the one that it was.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails; then nothing was heard.
    pub fn ledger_met(
        &self,
        keeper: &str,
        has: LedgerMark,
        at_mark: Option<LedgerMark>,
        now_us: i64,
    ) -> Result<bool, StoreError> {
        self.state.write(|transaction| {
            let Some(LedgerRow { mark: had, .. }) = row(transaction, keeper)? else {
                return reach(transaction, keeper, has).map(|()| false);
            };
            // The files are the better witness: they have what was told a moment ago. Unless more was heard since they were looked at.
            let at_mark = at_mark.filter(|at| at.entries == had.entries);
            let goes_on = at_mark.map_or_else(|| has.entries > had.entries || has == had, |at| at == had);
            if had.entries == 0 || goes_on {
                return reach(transaction, keeper, has).map(|()| false);
            }
            let fall = FallRow { had, has, at_us: now_us, is_raised: false };
            keep(transaction, keeper, &LedgerRow { mark: has, fall: Some(fall) }).map(|()| true)
        })
    }

    /// Hears how far the ledger of a collector has come since it connected.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn ledger_reached(&self, keeper: &str, mark: LedgerMark) -> Result<(), StoreError> {
        self.state.write(|transaction| reach(transaction, keeper, mark))
    }

    /// [`Self::audit_done`], by a ledger that is so far.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn audit_taken(&self, up_to: u64, by: Option<(&str, LedgerMark)>) -> Result<(), StoreError> {
        let room = self.options.audit_entries;
        self.state.write(|transaction| {
            audit::done(transaction, room, up_to)?;
            by.map_or(Ok(()), |(keeper, mark)| reach(transaction, keeper, mark))
        })
    }

    /// The ledgers that are not the ones that they were, the newest time of each, until an operator accepts it.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn ledger_falls(&self) -> Result<Vec<LedgerFall>, StoreError> {
        let mut falls = Vec::new();
        for entry in self.state.read()?.open_table(LEDGERS)?.iter()? {
            let (keeper, row) = entry?;
            let Some(FallRow { had, has, at_us, is_raised }) = row.value().decode()?.fall else { continue };
            falls.push(LedgerFall { keeper: keeper.value().to_owned(), had, has, at_us, is_raised });
        }
        Ok(falls)
    }

    /// An alert of it was raised, unless it fell again meanwhile.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn ledger_fall_raised(&self, fall: &LedgerFall) -> Result<(), StoreError> {
        self.state.write(|transaction| {
            let Some(LedgerRow { mark, fall: Some(known) }) = row(transaction, &fall.keeper)? else { return Ok(()) };
            if known.at_us != fall.at_us {
                return Ok(());
            }
            let known = FallRow { is_raised: true, ..known };
            keep(transaction, &fall.keeper, &LedgerRow { mark, fall: Some(known) })
        })
    }

    /// An operator takes the ledgers as they are; an entry of each says so. Those of which no alert was raised yet stay.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn accept_ledgers(&self, actor: &str) -> Result<Vec<LedgerFall>, StoreError> {
        let falls: Vec<_> = self.ledger_falls()?.into_iter().filter(|fall| fall.is_raised).collect();
        let room = self.options.audit_entries;
        self.state.write(|transaction| {
            for fall in &falls {
                let Some(LedgerRow { mark, .. }) = row(transaction, &fall.keeper)? else { continue };
                keep(transaction, &fall.keeper, &LedgerRow { mark, fall: None })?;
                audit::push(transaction, room, actor, "ledger-accepted", &fall.told())?;
            }
            Ok(())
        })?;
        Ok(falls)
    }
}
