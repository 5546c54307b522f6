//! Other allocators are taken as they are.

use procmond::sources::HandedOver;

pub(crate) fn tighten(_open: impl FnOnce() -> Option<HandedOver>) {}
