//! The cooperative matrices of an adapter: small matrices that the threads of a subgroup multiply together.

use serde::{Deserialize, Serialize};
use wgpu::{CooperativeScalarType, Features};

/// The features of a driver that kernels with cooperative matrices need.
pub(super) const FEATURES: Features =
    Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(Features::SHADER_F16).union(Features::SUBGROUP);

/// The environment variable that switches the matrices off with the value `0`.
const SWITCH: &str = "LUMENFALL_GPU_MATRICES";

/// The reason against matrices whose test did not end.
pub(super) const FAILED: &str = "the test of cooperative matrices has ended the program or lost the GPU";

/// Cooperative matrices with factors in f16 and sums in f32, and how a product uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Matrices {
    /// The number of rows and of columns of a matrix.
    pub(crate) side: u32,
    /// The number of threads of a subgroup.
    pub(crate) subgroup: u32,
    /// The number of rows and columns of matrices that a subgroup computes.
    pub(crate) grid: [u32; 2],
}

impl Matrices {
    /// Returns the matrices that an adapter offers, the most suitable ones first, or why there are none.
    pub(super) fn of(adapter: &wgpu::Adapter) -> Result<Vec<Self>, &'static str> {
        let info = adapter.get_info();
        // naga translates vectors of f16 in workgroup memory to a pointer that Metal rejects, and wgpu does not know Metal's subgroups.
        if info.backend == wgpu::Backend::Metal {
            return Err("cooperative matrices are not supported on Metal");
        }
        if std::env::var_os(SWITCH).is_some_and(|value| value == "0") {
            return Err("cooperative matrices are switched off");
        }
        let missing = "the driver has no cooperative matrices with factors in f16 and sums in f32";
        if !adapter.features().contains(FEATURES) {
            return Err(missing);
        }
        let usable = |p: &wgpu::CooperativeMatrixProperties| {
            (p.m_size, p.m_size) == (p.n_size, p.k_size)
                && (p.ab_type, p.cr_type) == (CooperativeScalarType::F16, CooperativeScalarType::F32)
        };
        let properties = adapter.cooperative_matrix_properties();
        let mut sides: Vec<u32> = properties.iter().filter(|p| usable(p)).map(|p| p.m_size).collect();
        sides.sort_unstable_by(|a, b| b.cmp(a));
        sides.dedup();
        // Some drivers choose the size of a subgroup for each kernel. The self-test shows which one is right.
        let mut subgroups = vec![info.subgroup_min_size, info.subgroup_max_size];
        subgroups.dedup();
        let limits = adapter.limits();
        let largest = |side: u32, subgroup: u32| {
            let grids = [[2, 4], [1, 2]].map(|grid| Self { side, subgroup, grid });
            grids.into_iter().find(|matrices| matrices.fit(&limits))
        };
        let all = sides.iter().flat_map(|side| subgroups.iter().filter_map(|size| largest(*side, *size)));
        Some(all.collect::<Vec<_>>()).filter(|all| !all.is_empty()).ok_or(missing)
    }

    /// Returns the number of rows and columns that a workgroup computes.
    pub(super) fn tile(self) -> [u32; 2] {
        let [rows, columns] = self.grid;
        [4 * rows * self.side, 2 * columns * self.side]
    }

    /// Returns the number of rows of which all threads of a workgroup read a vector at the same time.
    pub(super) fn rows_per_load(self) -> u32 {
        8 * self.subgroup / (self.side / 2)
    }

    /// Returns whether the kernel of attention can compute heads of `head` values.
    pub(super) fn fit_attention(self, head: usize, limits: &wgpu::Limits) -> bool {
        let (side, subgroup) = (self.side as usize, self.subgroup as usize);
        let queries = 4 * side;
        // Two tiles in f16, sums, weights in f16, and a value for each thread, with the padding of the rows.
        let bytes = 2 * queries * (head + 8) * 2
            + queries * (queries.max(head) + 4) * 4
            + queries * (queries + 8) * 2
            + 4 * subgroup * 4;
        subgroup.is_multiple_of(side)
            && head > 0
            && head.is_multiple_of(side)
            && head.is_multiple_of(subgroup / side)
            && bytes <= limits.max_compute_workgroup_storage_size as usize
    }

    fn fit(self, limits: &wgpu::Limits) -> bool {
        let threads = 8 * self.subgroup;
        let rows: u32 = self.tile().iter().sum();
        // Two pages of rows with two vectors of padding, and one matrix of sums for each subgroup.
        let bytes = 2 * rows * (self.side / 2 + 2) * 8 + 8 * self.side * self.side * 4;
        let step = self.rows_per_load();
        step > 0
            && self.tile().iter().all(|side| side.is_multiple_of(step))
            && bytes <= limits.max_compute_workgroup_storage_size
            && threads <= limits.max_compute_invocations_per_workgroup
            && threads <= limits.max_compute_workgroup_size_x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(side: u32, subgroup: u32, grid: [u32; 2], kibibytes: u32) -> bool {
        let limits = wgpu::Limits { max_compute_workgroup_storage_size: kibibytes << 10, ..wgpu::Limits::default() };
        Matrices { side, subgroup, grid }.fit(&limits)
    }

    #[test]
    fn attention_must_fit_into_the_memory_of_a_workgroup() {
        let limits = |kibibytes: u32| wgpu::Limits {
            max_compute_workgroup_storage_size: kibibytes << 10,
            ..wgpu::Limits::default()
        };
        let matrices = |side, subgroup| Matrices { side, subgroup, grid: [2, 4] };
        assert!(matrices(16, 32).fit_attention(64, &limits(48)) && !matrices(16, 32).fit_attention(64, &limits(32)));
        assert!(matrices(8, 32).fit_attention(64, &limits(32)) && matrices(8, 8).fit_attention(8, &limits(16)));
        // A head consists of whole matrices, and a query of the values of whole threads.
        assert!(!matrices(16, 32).fit_attention(24, &limits(48)) && !matrices(16, 8).fit_attention(64, &limits(48)));
    }

    #[test]
    fn matrices_must_fit_into_the_memory_of_a_workgroup() {
        assert!(fit(16, 32, [2, 4], 48) && !fit(16, 32, [2, 4], 47));
        assert!(fit(16, 32, [1, 2], 32));
        assert!(fit(8, 8, [2, 4], 16) && fit(8, 32, [2, 4], 32));
        // A workgroup may have 256 threads.
        assert!(!fit(16, 64, [1, 2], 48));
    }
}
