//! Faults and bad input, by the rows of the table in `docs/reliability.md`.

mod input;
mod process;
mod reload;
mod watched;
