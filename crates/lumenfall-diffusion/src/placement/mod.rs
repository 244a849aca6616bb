//! Where the weights are: in memory, or in the file until they are needed.

mod lazy;

pub(crate) use lazy::{Blocks, Lazy};
