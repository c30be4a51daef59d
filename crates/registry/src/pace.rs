//! A limit on bytes a second that all transfers of a registry share.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bytes are let through as long as the rate so far allows it; a pause saves up no more than this.
const SAVED: Duration = Duration::from_millis(100);

/// Hands out the right to move bytes.
pub(crate) struct Pace {
    bytes_per_second: Option<NonZeroU64>,
    /// When everything let through so far will have been paid for.
    paid_at: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: Option<NonZeroU64>) -> Self {
        Self { bytes_per_second, paid_at: Mutex::default() }
    }

    /// Waits until `bytes` more may move.
    pub(crate) async fn take(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let now = Instant::now();
        let wait = {
            let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
            let from = paid_at.map_or(now, |paid_at| paid_at.max(now.checked_sub(SAVED).unwrap_or(now)));
            let until = from + Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
            *paid_at = Some(until);
            until.saturating_duration_since(now)
        };
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_over_all_who_ask() {
        let pace = Pace::new(NonZeroU64::new(1000));
        let start = Instant::now();
        for _ in 0..10 {
            tokio::join!(pace.take(100), pace.take(400));
        }
        let taken = start.elapsed();
        assert!(taken >= Duration::from_millis(4900) && taken <= Duration::from_millis(5100), "{taken:?}");
        // A pause is not made up for.
        tokio::time::sleep(Duration::from_mins(1)).await;
        let start = Instant::now();
        pace.take(2000).await;
        assert!(start.elapsed() >= Duration::from_millis(1900));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        let start = Instant::now();
        Pace::new(None).take(u64::MAX).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
