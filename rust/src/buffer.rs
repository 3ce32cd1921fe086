//! How many events of a stream may wait for its consumer.

use std::time::Duration;

/// The bound of a stream's buffer. When it is full, Python stops reading the LM's socket.
///
/// A plain number is a fixed bound: `program.stream(inputs).buffer(16)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Buffer {
    /// This many events, at least 1.
    Fixed(usize),
    /// Starts at `min`; doubles up to `max` when a full buffer is soon taken, halves when it stays full for long.
    Adaptive {
        /// The least, and the start.
        min: usize,
        /// The most.
        max: usize,
    },
}

impl Buffer {
    /// 64 events.
    pub const DEFAULT: Self = Self::Fixed(64);

    pub(crate) fn start(self) -> usize {
        match self {
            Self::Fixed(size) => size.max(1),
            Self::Adaptive { min, .. } => min.max(1),
        }
    }

    /// The bound after the buffer was full for `full_for` and then had room.
    pub(crate) fn next(self, bound: usize, full_for: Duration) -> usize {
        let Self::Adaptive { min, max } = self else { return bound };
        let (min, max) = (min.max(1), max.max(min).max(1));
        if full_for <= QUICK {
            (bound * 2).min(max)
        } else if full_for >= SLOW {
            (bound / 2).max(min)
        } else {
            bound
        }
    }
}

/// A reader that makes room so soon was only interrupted: a larger buffer saves it a stop.
const QUICK: Duration = Duration::from_millis(10);
/// A reader that takes so long gains nothing from what waits, which only grows stale.
const SLOW: Duration = Duration::from_millis(250);

impl Default for Buffer {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl From<usize> for Buffer {
    fn from(size: usize) -> Self {
        Self::Fixed(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_for_the_quick_and_shrinks_for_the_slow() {
        let buffer = Buffer::Adaptive { min: 4, max: 10 };
        assert_eq!(buffer.start(), 4);
        assert_eq!(buffer.next(4, Duration::from_millis(1)), 8);
        assert_eq!(buffer.next(8, Duration::from_millis(1)), 10);
        assert_eq!(buffer.next(8, Duration::from_millis(100)), 8);
        assert_eq!(buffer.next(10, Duration::from_secs(1)), 5);
        assert_eq!(buffer.next(5, Duration::from_secs(1)), 4);
    }

    #[test]
    fn a_fixed_one_stays_and_is_never_zero() {
        assert_eq!(Buffer::Fixed(7).next(7, Duration::ZERO), 7);
        assert_eq!(Buffer::from(0).start(), 1);
    }
}
