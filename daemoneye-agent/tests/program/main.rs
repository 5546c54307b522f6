//! The real program: how it starts and answers, what the kernel says of it, and what it makes of a store that is too new.

mod copied;
mod jailed;
mod newer_store;
mod starts;
