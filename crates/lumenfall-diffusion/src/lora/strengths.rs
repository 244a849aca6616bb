//! The strengths of the LoRAs in the current requests.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::Result;

/// How often a request that waits checks whether it was cancelled.
const CANCEL_INTERVAL: Duration = Duration::from_millis(20);

/// The strength of each LoRA, as the layers read it.
///
/// All requests that run at the same time have the same strengths. A request with others waits until they have ended.
/// Since each request uses all threads, no time is lost.
#[derive(Debug)]
pub(super) struct Strengths {
    values: Vec<AtomicU32>,
    running: Mutex<usize>,
    ended: Condvar,
}

/// A request that runs with its strengths until it is dropped.
#[derive(Debug)]
pub(crate) struct ActiveStrengths(Arc<Strengths>);

impl Strengths {
    pub(super) fn new(count: usize) -> Self {
        let values = (0..count).map(|_| AtomicU32::new(0)).collect();
        Self { values, running: Mutex::new(0), ended: Condvar::new() }
    }

    pub(super) fn get(&self, lora: usize) -> f32 {
        self.values.get(lora).map_or(0.0, |value| f32::from_bits(value.load(Ordering::Relaxed)))
    }

    /// Sets the strengths for a request, after requests with other strengths have ended.
    pub(super) fn activate(
        self: &Arc<Self>,
        strengths: &[f32],
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<ActiveStrengths> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let are_set = || strengths.iter().enumerate().all(|(lora, strength)| self.get(lora) == *strength);
        while *running > 0 && !are_set() {
            check_cancelled()?;
            running = match self.ended.wait_timeout(running, CANCEL_INTERVAL) {
                Ok((running, _)) => running,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        for (value, strength) in self.values.iter().zip(strengths) {
            value.store(strength.to_bits(), Ordering::Relaxed);
        }
        *running += 1;
        Ok(ActiveStrengths(Arc::clone(self)))
    }
}

impl Drop for ActiveStrengths {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_request_waits_for_those_with_other_strengths() {
        let strengths = Arc::new(Strengths::new(2));
        let first = strengths.activate(&[1.0, 0.5], &|| Ok(())).unwrap();
        let same = strengths.activate(&[1.0, 0.5], &|| Ok(())).unwrap();
        assert!(matches!(strengths.activate(&[1.0, 0.0], &|| Err(Error::Cancelled)), Err(Error::Cancelled)));
        let other = {
            let strengths = Arc::clone(&strengths);
            std::thread::spawn(move || strengths.activate(&[0.0, -1.0], &|| Ok(())).map(|_active| strengths.get(1)))
        };
        drop(first);
        assert_eq!([strengths.get(0), strengths.get(1)], [1.0, 0.5]);
        drop(same);
        assert_eq!(other.join().unwrap().unwrap(), -1.0);
    }
}
