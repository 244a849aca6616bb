//! Where the weights are: in memory, or in the file until they are needed.

mod budget;
mod lazy;
mod plan;

pub use budget::MemoryBudget;
pub(crate) use lazy::{Blocks, Lazy};
pub(crate) use plan::{Phase, Plan};
