//! When to try again, and how long to wait: a pure policy, with the randomness passed in.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use mlxctl_content::Observer;

use crate::error::Error;

/// How failures that may pass are met. A transfer that moved on since its last failure starts counting anew.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Tries in a row that may fail, the first included; at least one.
    pub tries: u32,
    /// The wait after the first failure; it doubles with each further one.
    pub base: Duration,
    /// The longest wait of our own choosing.
    pub longest: Duration,
    /// The longest wait that a registry may ask for with `Retry-After`; one that asks for more ends the operation.
    pub longest_asked: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries: 6,
            base: Duration::from_millis(400),
            longest: Duration::from_secs(20),
            longest_asked: Duration::from_mins(2),
        }
    }
}

impl RetryPolicy {
    /// How long to wait after the `failures`-th failure in a row, or `None` to give up. `asked` is the registry's
    /// `Retry-After`; `random` spreads the waits of many clients over the upper half of the interval.
    pub fn delay(&self, failures: u32, asked: Option<Duration>, random: u64) -> Option<Duration> {
        if failures >= self.tries.max(1) {
            return None;
        }
        let doubled = self.base.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest);
        let spread = doubled / 2 + (doubled / 2).mul_f64(random as f64 / u64::MAX as f64);
        match asked {
            Some(asked) if asked > self.longest_asked => None,
            Some(asked) => Some(asked.max(spread.min(Duration::from_secs(1)))),
            None => Some(spread),
        }
    }
}

/// Failures in a row of one operation.
pub(crate) struct Attempts<'a> {
    policy: RetryPolicy,
    observer: &'a dyn Observer,
    failures: u32,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(policy: RetryPolicy, observer: &'a dyn Observer) -> Self {
        Self { policy, observer, failures: 0 }
    }

    /// Goes on counting where an earlier operation stopped.
    pub(crate) fn after(mut self, failures: u32) -> Self {
        self.failures = failures;
        self
    }

    /// Waits for the next try.
    ///
    /// # Errors
    /// The failure itself, where it will not pass or has come too often.
    pub(crate) async fn failed(&mut self, error: Error) -> Result<(), Error> {
        if !error.may_pass() {
            return Err(error);
        }
        self.failures += 1;
        let Some(delay) = self.policy.delay(self.failures, error.retry_after(), random()) else {
            return Err(error);
        };
        tracing::debug!(%error, failures = self.failures, ?delay, "trying again");
        self.observer.notice(&format!("{error}; trying again in {:.1} s", delay.as_secs_f64()));
        tokio::time::sleep(delay).await;
        Ok(())
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

fn random() -> u64 {
    // The keys of a hash map are the randomness that the standard library has.
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_end() {
        let policy = RetryPolicy {
            tries: 5,
            base: Duration::from_secs(1),
            longest: Duration::from_secs(3),
            longest_asked: Duration::from_mins(1),
        };
        let upper = |failures| policy.delay(failures, None, u64::MAX).map(|delay| delay.as_millis());
        let lower = |failures| policy.delay(failures, None, 0).map(|delay| delay.as_millis());
        assert_eq!([1, 2, 3, 4, 5].map(upper), [Some(1000), Some(2000), Some(3000), Some(3000), None]);
        assert_eq!([1, 2, 3, 4, 5].map(lower), [Some(500), Some(1000), Some(1500), Some(1500), None]);
        assert_eq!(policy.delay(1, Some(Duration::from_secs(7)), 0), Some(Duration::from_secs(7)));
        assert_eq!(policy.delay(1, Some(Duration::from_secs(61)), 0), None);
        assert!(policy.delay(4, Some(Duration::ZERO), u64::MAX) <= Some(Duration::from_secs(1)));
        assert_eq!(RetryPolicy { tries: 0, ..policy }.delay(1, None, 0), None);
    }
}
