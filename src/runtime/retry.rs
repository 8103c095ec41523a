//! Jittered, bounded retry delays. The only importer of `backoff`, which is unmaintained (RUSTSEC-2025-0012):
//! replacing it is a change of this file.

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;
use std::time::Duration;

/// Delays between attempts: growing by half each time with 50 % jitter, for ever, up to a cap.
#[derive(Debug)]
pub struct Retry(ExponentialBackoff);

impl Retry {
    /// From `first` to `cap`.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self(ExponentialBackoff {
            initial_interval: first,
            current_interval: first,
            max_interval: cap,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// The last attempt was good: begin again with the shortest delay.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_stay_under_the_cap() {
        let mut retry = Retry::new(Duration::from_millis(100), Duration::from_secs(10));
        let delays: Vec<_> = (0..50).map(|_| retry.next_delay()).collect();
        assert!(delays[0] <= Duration::from_millis(150));
        assert!(delays.iter().all(|d| *d <= Duration::from_secs(15)));
        assert!(delays[49] >= Duration::from_secs(5));
        retry.reset();
        assert!(retry.next_delay() <= Duration::from_millis(150));
    }
}
