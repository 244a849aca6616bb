//! First-block caching: the blocks after the first are left out while the first one changes the image tokens almost as before.
//!
//! The method of ParaAttention, and of `FirstBlockCacheConfig` in diffusers.

use crate::error::Result;
use crate::layers::{add, subtract};
use crate::tensor::Tensor;

/// The cache for one condition of one image.
#[derive(Clone, Debug)]
pub(crate) struct FirstBlockCache {
    threshold: f32,
    changes: Option<Changes>,
    skipped: usize,
}

/// How the blocks changed the image tokens in the last forward pass that computed all of them.
#[derive(Clone, Debug)]
struct Changes {
    /// The change by the first block, in memory.
    first: Tensor,
    /// The change by all other blocks.
    others: Tensor,
}

impl FirstBlockCache {
    /// Creates an empty cache. `threshold` is the relative change of the first block's result up to which the others are left out.
    pub(crate) fn new(threshold: f32) -> Self {
        Self { threshold, changes: None, skipped: 0 }
    }

    /// Returns the number of forward passes that left out blocks.
    pub(crate) fn skipped(&self) -> usize {
        self.skipped
    }

    /// Returns the image tokens after the last block.
    ///
    /// `before` and `after` are the tokens before and after the first block. `compute` computes the other blocks if it is called.
    pub(super) fn complete(
        &mut self,
        before: &Tensor,
        after: Tensor,
        compute: impl FnOnce(Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let first = subtract(after.clone(), before)?.on_cpu()?;
        if let Some(changes) = self.changes.as_ref().filter(|last| is_similar(&first, &last.first, self.threshold)) {
            self.skipped += 1;
            return add(after, &changes.others);
        }
        // Not needed anymore, and as large as what is computed now.
        self.changes = None;
        let last = compute(after.clone())?;
        self.changes = Some(Changes { first, others: subtract(last.clone(), &after)? });
        Ok(last)
    }
}

/// Returns whether the mean absolute difference is at most `threshold` of the mean absolute value. It is not if a value is NaN.
fn is_similar(change: &Tensor, last: &Tensor, threshold: f32) -> bool {
    let (mut difference, mut size) = (0.0, 0.0);
    // In order, so that the result does not depend on the number of threads.
    for (value, last) in change.values().iter().zip(last.values()) {
        difference += f64::from((value - last).abs());
        size += f64::from(last.abs());
    }
    change.len() == last.len() && difference / size <= f64::from(threshold)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(values: [f32; 2]) -> Tensor {
        Tensor::new(values.to_vec(), &[1, 2]).unwrap()
    }

    /// Runs a forward pass whose first block adds `change`. The other blocks add 10 if they are computed.
    fn run(cache: &mut FirstBlockCache, change: [f32; 2]) -> f32 {
        let after = tokens([1.0 + change[0], 1.0 + change[1]]);
        let others = |image: Tensor| Ok(image.map(|value| value + 10.0));
        cache.complete(&tokens([1.0, 1.0]), after, others).unwrap().values()[0]
    }

    #[test]
    fn the_change_is_compared_with_that_of_the_last_complete_pass() {
        let mut cache = FirstBlockCache::new(0.25);
        let mut skipped = Vec::new();
        // Each differs by less than 25 % from the one before it, but the third by more than that from the first.
        for change in [2.0, 2.75, 3.5, 4.0, f32::NAN, 4.0] {
            let result = run(&mut cache, [change, 2.0]);
            assert!(result == 11.0 + change || change.is_nan(), "{result}");
            skipped.push(cache.skipped());
        }
        assert_eq!(skipped, [0, 1, 1, 2, 2, 2]);
    }
}
