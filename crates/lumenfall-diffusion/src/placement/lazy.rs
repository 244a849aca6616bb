//! Parts of a model that are read when they are needed.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::error::Result;

/// A part of a model that is read from its file when it is needed, and that stays in memory only if it is to be kept.
pub(crate) struct Lazy<T> {
    read: Box<dyn Fn(bool) -> Result<T> + Send + Sync>,
    keep: AtomicBool,
    value: Mutex<Option<Arc<T>>>,
}

impl<T> fmt::Debug for Lazy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lazy").field("keep", &self.keep).finish_non_exhaustive()
    }
}

impl<T> Lazy<T> {
    /// Creates a part that is not kept.
    pub(crate) fn new(read: impl Fn() -> Result<T> + Send + Sync + 'static) -> Self {
        Self::with(move |_| read())
    }

    /// Creates a part that is not kept. The argument of `read` is whether the part stays in memory.
    fn with(read: impl Fn(bool) -> Result<T> + Send + Sync + 'static) -> Self {
        Self { read: Box::new(read), keep: AtomicBool::new(false), value: Mutex::new(None) }
    }

    /// Creates a part that is kept.
    pub(crate) fn kept(read: impl Fn() -> Result<T> + Send + Sync + 'static) -> Self {
        Self { keep: AtomicBool::new(true), ..Self::new(read) }
    }

    /// Determines whether the part stays in memory after its next use.
    pub(crate) fn keep(&self, keep: bool) {
        self.keep.store(keep, Ordering::Relaxed);
        if !keep {
            self.forget();
        }
    }

    /// Returns the part, after reading it if it is not in memory.
    pub(crate) fn get(&self) -> Result<Arc<T>> {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = &*value {
            return Ok(Arc::clone(value));
        }
        let keep = self.keep.load(Ordering::Relaxed);
        let read = Arc::new((self.read)(keep)?);
        if keep {
            *value = Some(Arc::clone(&read));
        }
        Ok(read)
    }

    /// Frees the memory of the part. It is read again when it is needed.
    pub(crate) fn forget(&self) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn is_in_memory(&self) -> bool {
        self.value.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// The blocks of a transformer, which run one after another.
#[derive(Debug)]
pub(crate) struct Blocks<B>(Vec<Lazy<B>>);

impl<B: Send + Sync> Blocks<B> {
    /// Creates `count` blocks, none of which is kept. `read` reads the block with an index; its second argument is whether the
    /// block stays in memory.
    pub(crate) fn new(count: usize, read: impl Fn(usize, bool) -> Result<B> + Send + Sync + 'static) -> Self {
        let read = Arc::new(read);
        let block = |index| {
            let read = Arc::clone(&read);
            Lazy::with(move |keep| read(index, keep))
        };
        Self((0..count).map(block).collect())
    }

    /// Keeps the first `count` blocks in memory. The others are read for each use.
    ///
    /// A fixed set is better than keeping the blocks that were used last: these would always be the wrong ones.
    pub(crate) fn keep(&self, count: usize) {
        self.0.iter().enumerate().for_each(|(index, block)| block.keep(index < count));
    }

    /// Returns the indices of the blocks that are in memory.
    pub(crate) fn in_memory(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().filter(|(_, block)| block.is_in_memory()).map(|(index, _)| index)
    }

    /// Calls `run` for each block in order. While it computes, another thread reads the next block.
    pub(crate) fn try_for_each(&self, run: impl FnMut(usize, &B) -> Result<()>) -> Result<()> {
        self.try_for_each_in(0..self.0.len(), run)
    }

    /// Calls `run` for each block of a range, as [`Blocks::try_for_each`] does. No other block is read.
    pub(crate) fn try_for_each_in(
        &self,
        range: Range<usize>,
        mut run: impl FnMut(usize, &B) -> Result<()>,
    ) -> Result<()> {
        thread::scope(|scope| {
            let mut ahead = None;
            for (index, block) in self.0.iter().enumerate().take(range.end).skip(range.start) {
                let current = match ahead.take() {
                    Some(reader) => thread::ScopedJoinHandle::join(reader).unwrap_or_else(|_| block.get())?,
                    None => block.get()?,
                };
                let next = self.0.get(index + 1).filter(|next| index + 1 < range.end && !next.is_in_memory());
                if let Some(next) = next {
                    ahead =
                        thread::Builder::new().name("lumenfall-read".into()).spawn_scoped(scope, || next.get()).ok();
                }
                run(index, &current)?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::error::Error;

    #[test]
    fn kept_blocks_are_read_once_and_the_others_for_each_use() {
        let reads: Arc<[AtomicUsize; 4]> = Arc::default();
        let counted = Arc::clone(&reads);
        let blocks = Blocks::new(4, move |index, _| {
            counted[index].fetch_add(1, Ordering::Relaxed);
            Ok(index)
        });
        blocks.keep(2);
        for _ in 0..3 {
            let mut order = Vec::new();
            let run = |index, block: &usize| {
                order.push((index, *block));
                Ok(())
            };
            blocks.try_for_each(run).unwrap();
            assert_eq!(order, [(0, 0), (1, 1), (2, 2), (3, 3)]);
        }
        assert_eq!(reads.each_ref().map(|reads| reads.load(Ordering::Relaxed)), [1, 1, 3, 3]);
        blocks.keep(0);
        blocks.try_for_each_in(1..3, |_, _| Ok(())).unwrap();
        assert_eq!(reads.each_ref().map(|reads| reads.load(Ordering::Relaxed)), [1, 2, 4, 3]);
        blocks.try_for_each(|_, _| Ok(())).unwrap();
        assert_eq!(reads[0].load(Ordering::Relaxed), 2);
    }

    #[test]
    fn an_error_of_a_block_that_is_read_ahead_is_returned() {
        let blocks =
            Blocks::new(3, |index, _| if index == 2 { Err(Error::Compute("unreadable".into())) } else { Ok(index) });
        let mut seen = 0;
        let count = |_, _: &usize| {
            seen += 1;
            Ok(())
        };
        let error = blocks.try_for_each(count).unwrap_err();
        assert_eq!((seen, error.to_string().contains("unreadable")), (2, true));
    }
}
