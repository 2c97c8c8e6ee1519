//! Faults and bad input, by the rows of the table in `docs/reliability.md`.

mod exhausted;
mod input;
mod process;
mod reload;
mod watched;
