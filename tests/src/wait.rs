//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long one look at a condition is followed by the next.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `look` finds something; its last complaint is part of the error when `limit` is over.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= end => {
                bail!("waited {limit:?} in vain for {what}: {error:#}");
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Looks until `holds` is true.
pub fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, limit, || if holds() { Ok(()) } else { bail!("it does not hold yet") })
}
