//! The store: what it promises, what it makes of a directory that lost a part, was damaged or copied, of one that an older
//! build wrote, and of itself as a whole.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop there")]

mod copies;
mod damage;
mod events;
mod golden;
mod proven;
mod raw;
mod whole;
