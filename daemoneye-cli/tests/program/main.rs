//! The real program: how it starts, what it says to an agent and to a script, what the kernel says of it, and how it ends.

mod held;
mod jailed;
mod killed;
mod starts;
mod talks;
