//! A record of the tensors that a model requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The names and shapes of the tensors that a model requests. Clones share one record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests(Arc<Mutex<BTreeMap<String, Vec<usize>>>>);

impl Requests {
    pub(super) fn add(&self, name: &str, shape: &[usize]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), shape.to_vec());
    }

    /// Returns the shape of each requested tensor. The shape of a table ends with the last requested row.
    pub(crate) fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
