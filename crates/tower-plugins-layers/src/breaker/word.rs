//! All that admission and judgement decide by, in one word, so that each decision is one exchange.

use super::BreakerState;

/// What the word holds.
///
/// The generation counts the changes of state, so that what began in another one is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) generation: u32,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// With the failures since the last success.
    Closed { streak: u32 },
    /// For the `trips`-th time in a row.
    Open { trips: u8 },
    /// With permits out and successes seen.
    HalfOpen { trips: u8, out: u16, ok: u16 },
    /// By hand, until somebody resets it.
    Forced { open: bool },
}

impl State {
    pub(super) const fn seen(self) -> BreakerState {
        match self {
            Self::Closed { .. } | Self::Forced { open: false } => BreakerState::Closed,
            Self::Open { .. } | Self::Forced { open: true } => BreakerState::Open,
            Self::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

const GENERATIONS: u32 = (1 << 24) - 1;
const TRIPS: u8 = 63;

impl Word {
    // state:2 | generation:24 | trips:6 | out:16 | ok:16, with the streak in the place of the last two.
    pub(super) fn pack(self) -> u64 {
        let (state, trips, low) = match self.state {
            State::Closed { streak } => (0, 0, streak),
            State::Open { trips } => (1, trips, 0),
            State::HalfOpen { trips, out, ok } => (2, trips, u32::from(out) << 16 | u32::from(ok)),
            State::Forced { open } => (3, 0, u32::from(open)),
        };
        let state: u64 = state << 62;
        state | u64::from(self.generation) << 38 | u64::from(trips) << 32 | u64::from(low)
    }

    pub(super) fn unpack(word: u64) -> Self {
        let low = word as u32;
        let trips = (word >> 32) as u8 & TRIPS;
        Self {
            generation: (word >> 38) as u32 & GENERATIONS,
            state: match word >> 62 {
                0 => State::Closed { streak: low },
                1 => State::Open { trips },
                2 => State::HalfOpen {
                    trips,
                    out: (low >> 16) as u16,
                    ok: low as u16,
                },
                _ => State::Forced { open: low != 0 },
            },
        }
    }

    pub(super) const fn then(self, state: State) -> Self {
        Self {
            generation: (self.generation + 1) & GENERATIONS,
            state,
        }
    }

    pub(super) const fn with(self, state: State) -> Self {
        Self { state, ..self }
    }

    pub(super) fn opened(self, trips: u8) -> Self {
        self.then(State::Open {
            trips: (trips + 1).min(TRIPS),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_the_same_after_packing() {
        for state in [
            State::Closed { streak: u32::MAX },
            State::Open { trips: TRIPS },
            State::HalfOpen {
                trips: 5,
                out: u16::MAX,
                ok: 7,
            },
            State::Forced { open: false },
            State::Forced { open: true },
        ] {
            for generation in [0, 1, GENERATIONS] {
                let word = Word { generation, state };
                assert_eq!(Word::unpack(word.pack()), word);
            }
        }
    }
}
