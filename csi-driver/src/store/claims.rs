//! At most one call at a time per object.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{Error, Result};

/// The objects that calls are working on.
#[derive(Debug, Default)]
pub struct Claims {
    taken: Mutex<BTreeSet<String>>,
    freed: Condvar,
}

/// An object is this call's until the value is dropped.
#[derive(Debug)]
pub struct Claim<'a> {
    claims: &'a Claims,
    key: String,
}

impl Claims {
    /// Takes `key`, waiting for another call at most for `patience`. A controller call does not wait: its sidecar asks
    /// again anyway. Publishing one volume for two pods at once is usual, and takes milliseconds.
    pub fn take(&self, key: &str, patience: Duration) -> Result<Claim<'_>> {
        let end = Instant::now() + patience;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while taken.contains(key) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Busy(key.to_owned()));
            }
            (taken, _) = self.freed.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner);
        }
        taken.insert(key.to_owned());
        Ok(Claim { claims: self, key: key.to_owned() })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.claims.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two calls on one volume would interleave their effects.
    #[test]
    fn one_at_a_time() {
        let claims = Claims::default();
        let first = claims.take("v", Duration::ZERO).unwrap();
        assert!(matches!(claims.take("v", Duration::ZERO), Err(Error::Busy(_))));
        assert!(claims.take("w", Duration::ZERO).is_ok());
        std::thread::scope(|scope| {
            let second = scope.spawn(|| claims.take("v", Duration::from_secs(60)).map(drop));
            drop(first);
            assert_eq!(second.join().unwrap(), Ok(()));
        });
    }
}
