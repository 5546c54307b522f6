//! From the formats of earlier builds to ours, in the transaction that opens the store: all of it or nothing.
//!
//! Every format that a build has written is kept as a data directory under `tests/golden/`, and opened by a test.

use redb::WriteTransaction;

use super::state::{FORMAT_KEY, META};
use super::value::Record as _;
use super::{FORMAT_VERSION, StoreError, counts};

type Step = fn(&WriteTransaction) -> Result<(), StoreError>;

/// What makes each version the next one; the first is from 1 to 2. Tables that were added are there already, and empty.
const STEPS: [Step; 2] = [
    // 2 counts deliveries as it goes.
    counts::recount,
    // 3 lists the files that leave and segments of several levels: an older build would take both for damage.
    |_| Ok(()),
];

const _: () = assert!(STEPS.len() + 1 == FORMAT_VERSION as usize, "a step for each version");

/// Makes a store of version `found` one of ours.
pub(super) fn from(transaction: &WriteTransaction, found: u64) -> Result<(), StoreError> {
    if found >= u64::from(FORMAT_VERSION) {
        return Ok(());
    }
    let done = usize::try_from(found).unwrap_or(usize::MAX).saturating_sub(1);
    STEPS.iter().skip(done).try_for_each(|step| step(transaction))?;
    transaction.open_table(META)?.insert(FORMAT_KEY, u64::from(FORMAT_VERSION).encode()?)?;
    tracing::info!(found, now = FORMAT_VERSION, "the store was written by an older build and has been converted");
    Ok(())
}
