//! A collector as a whole: standalone, and against a real broker.

mod control;
mod heartbeats;
mod house;
mod modes;
mod second;
mod standalone;
