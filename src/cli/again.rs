//! Calls of tools: made again a few times, then given up.

use std::time::Duration;

use crate::guard::Backoff;
use crate::store::Retry;

/// How often a call that may pass is made.
const TRIES: u32 = 8;

/// Calls until it works, a few times.
pub(super) async fn again<V, F: Future<Output = Result<V, Retry>>>(call: impl Fn() -> F) -> anyhow::Result<V> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    for _ in 1..TRIES {
        match call().await {
            Ok(value) => return Ok(value),
            Err(retry) => tokio::time::sleep(backoff.next_delay().max(retry.after.unwrap_or_default())).await,
        }
    }
    call().await.map_err(|retry| anyhow::anyhow!("{}", retry.detail))
}
