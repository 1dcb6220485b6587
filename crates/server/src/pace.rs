//! The least pace at which a client takes or sends bytes while the server waits for it. A client that is slower holds a
//! connection, and memory, for longer than it needs them.

use std::io;
use std::time::Duration;

/// A least pace.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time of waiting after which the bytes are counted.
    pub window: Duration,
    /// Least bytes in each second of it.
    pub bytes_per_second: u32,
}

/// What has passed in the current window. Only the time counts in which the server waits for the client.
#[derive(Debug)]
pub struct Progress {
    pace: Pace,
    waited: Duration,
    bytes: u64,
}

impl Progress {
    /// Begins with an empty window.
    pub fn new(pace: Pace) -> Self {
        Self { pace, waited: Duration::ZERO, bytes: 0 }
    }

    /// Longest time to wait before [`Self::waited`] judges.
    pub fn left(&self) -> Duration {
        self.pace.window.saturating_sub(self.waited)
    }

    /// Counts bytes that have passed.
    pub fn moved(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Counts time in which the server waited. An error if that ends the window, and too few bytes have passed in it.
    pub fn waited(&mut self, time: Duration) -> io::Result<()> {
        self.waited += time;
        if self.waited < self.pace.window {
            return Ok(());
        }
        let least = self.pace.window.as_secs_f64() * f64::from(self.pace.bytes_per_second);
        if (self.bytes as f64) < least {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client is too slow"));
        }
        *self = Self::new(self.pace);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_too_slow_fails_at_the_end_of_a_window() {
        let second = Duration::from_secs(1);
        let mut progress = Progress::new(Pace { window: 10 * second, bytes_per_second: 100 });
        progress.moved(1_000);
        progress.waited(4 * second).unwrap();
        assert_eq!(progress.left(), 6 * second);
        progress.waited(6 * second).unwrap();
        assert_eq!(progress.left(), 10 * second, "the next window");
        progress.moved(999);
        progress.waited(9 * second).unwrap();
        assert_eq!(progress.waited(second).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
