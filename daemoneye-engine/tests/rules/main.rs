//! Rules: their files, the built-in pack, and that the row matcher decides as DataFusion does.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop at what cannot be")]

mod differential;
mod files;
mod foreign;
mod life;
mod pack;
mod prefilter;
mod sigma;
mod tools;
mod windows;
