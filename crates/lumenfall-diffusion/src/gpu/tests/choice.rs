//! The choice of an adapter, its buffers, and the files that it leaves for other processes.

use super::*;
use crate::device::{Device, GpuChoice};
use crate::gpu::cache::Cache;
use crate::gpu::self_test::Report;
use crate::gpu::{GpuKind, Matrices, devices};
use crate::placement::MemoryBudget;

#[test]
fn a_gpu_is_chosen_by_its_index_or_a_part_of_its_name() {
    let devices = devices();
    for (index, device) in devices.iter().enumerate() {
        assert_eq!(device.index, index);
        let name = device.name.to_uppercase();
        for choice in [GpuChoice::Index(index), GpuChoice::Name(name.get(..4).unwrap_or(&name).into())] {
            let (target, fallback) = Device::Gpu(choice).open(u64::MAX, MemoryBudget::Available).unwrap();
            assert!(matches!(target, Target::Gpu(_)) && fallback.is_none());
        }
    }
    assert!(devices.is_sorted_by_key(|device| device.kind), "{devices:?}");
    for choice in [GpuChoice::Index(99), GpuChoice::Name("Voodoo".into())] {
        let error = Device::Gpu(choice.clone()).open(0, MemoryBudget::Available).unwrap_err().to_string();
        assert!(error.contains(&choice.to_string()) && error.contains(&devices[0].name), "{error}");
    }
}

#[test]
fn a_software_adapter_is_never_the_default() {
    let hardware = devices().iter().any(|device| device.kind != GpuKind::Software);
    let (target, fallback) = Device::Auto.open(0, MemoryBudget::Available).unwrap();
    if hardware {
        assert!(matches!(target, Target::Gpu(_)) && fallback.is_none());
    } else {
        assert!(matches!(target, Target::Cpu) && fallback.unwrap().contains("only a software adapter"));
    }
}

#[test]
fn dropped_tensors_leave_no_buffer_behind() {
    let gpu = unshared();
    for _ in 0..3 {
        let x = Tensor::on_gpu(normal(1, &[40, 50]).view(&gpu).unwrap(), &[40, 50]).unwrap();
        let y = add(x.clone(), &x).unwrap();
        assert!(gpu.in_use() > 0);
        drop((x, y));
        assert_eq!(gpu.in_use(), 0);
    }
}

#[test]
fn a_buffer_that_is_too_large_is_an_error_after_which_the_gpu_computes() {
    let error = gpu().buffer(1 << 40).unwrap_err().to_string();
    assert!(error.contains(&devices()[0].name) && error.contains("4398046511104 bytes"), "{error}");
    let x = normal(1, &[4]);
    assert_same(1e-6, add(on_gpu(&x), &x), &x.values().iter().map(|x| 2.0 * f64::from(*x)).collect::<Vec<_>>());
}

/// The script `tools/gpu_matrices.sh` sets the variable.
#[test]
fn the_expected_matrices_are_used() {
    let sides = [gpu().matrices(), gpu().attention_matrices()].map(|matrices| Some(matrices?.side));
    if let Ok(expected) = std::env::var("LUMENFALL_TEST_MATRICES") {
        assert_eq!(sides, [Some(expected.parse().unwrap()); 2], "{:?}", gpu().report());
    }
    let device = &devices()[0];
    assert_eq!(sides, [device.matrices, device.attention_matrices]);
    assert_eq!(device.note.is_none(), sides.iter().all(Option::is_some));
    let precise = gpu().with_full_precision();
    assert_eq!((precise.matrices(), precise.attention_matrices()), (None, None));
}

/// `tools/gpu_matrices.sh` runs it with matrices.
#[test]
fn matrices_with_another_size_of_subgroups_than_the_drivers_are_not_used() {
    let Some(matrices) = gpu().matrices() else { return };
    let adapter = &adapters::all()[0];
    for subgroup in [matrices.subgroup * 2, matrices.subgroup * 4] {
        let candidates = Ok(vec![Matrices { subgroup, ..matrices }]);
        let gpu = Gpu::open(adapter, Options { matrices: candidates, ..Options::new(adapter) }).unwrap();
        assert_eq!(gpu.matrices(), None, "{:?}", gpu.report());
    }
}

#[test]
fn matrices_whose_test_ends_the_program_are_not_used_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = &adapters::all()[0];
    let candidates = Ok(vec![Matrices { side: 12, subgroup: 32, grid: [1, 2] }]);
    let report = |gpu: &Gpu, cache: &Cache| Report::of(gpu, "driver", &candidates, cache);
    let gpu = unshared();
    let cache = Cache::at(folder.path());
    // No driver has matrices of this size, so they are rejected.
    let rejected = report(&gpu, &cache).unwrap();
    assert!(rejected.matrices.is_none() && rejected.note.is_some(), "{rejected:?}");
    assert_eq!(report(&gpu, &cache).unwrap(), rejected);
    drop(std::fs::remove_dir_all(folder.path()));
    gpu.lose();
    assert!(report(&gpu, &cache).is_err());
    // The self-test of f32 failed, so that nothing was stored.
    assert!(!folder.path().exists());
    let lost = Options { matrices: Err(crate::gpu::matrices::FAILED), ..Options::new(adapter) };
    assert_eq!(Gpu::open(adapter, lost).unwrap().report().unwrap().note.as_deref(), Some(crate::gpu::matrices::FAILED));
}

#[test]
fn another_process_reads_the_kernels_and_the_result_of_the_self_test() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = &adapters::all()[0];
    let open = || {
        let cache = Cache::at(folder.path());
        Gpu::open(adapter, Options { cache, ..Options::new(adapter) }).unwrap()
    };
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        files
    };
    let first = open();
    if !adapter.features().contains(wgpu::Features::PIPELINE_CACHE) {
        assert_eq!(files().len(), 1);
        return;
    }
    let [kernels, report] = files().try_into().unwrap();
    // The driver determines the data that follow wgpu's header. That of lavapipe stores none.
    let stored = || Cache::at(folder.path()).read(kernels.file_name().unwrap().to_str().unwrap());
    assert!(stored().unwrap().starts_with(b"WGPUPLCH"));
    // A report that only a file can contain.
    let changed = Report { note: Some("as in the file".into()), ..Report::default() };
    assert_ne!(first.report(), Some(&changed));
    let name = report.file_name().unwrap().to_str().unwrap();
    Cache::at(folder.path()).write(name, &serde_json::to_vec(&changed).unwrap());
    let second = open();
    assert_eq!(second.report(), Some(&changed));
    let x = Tensor::new(vec![1.0; 4], &[4]).unwrap();
    let sum = |gpu: &Gpu| add(Tensor::on_gpu(x.view(gpu).unwrap(), &[4]).unwrap(), &x).unwrap().on_cpu().unwrap();
    // A kernel that is new is stored, once.
    for is_new in [true, false] {
        std::fs::remove_file(&kernels).unwrap();
        assert_eq!(sum(&second).values(), [2.0; 4]);
        assert_eq!(kernels.exists(), is_new);
        std::fs::write(&kernels, "corrupt").unwrap();
    }
    // Files that are corrupt, or have another format.
    std::fs::write(&report, "corrupt").unwrap();
    Cache::at(folder.path()).write(kernels.file_name().unwrap().to_str().unwrap(), b"another format");
    let third = open();
    assert_eq!(third.report(), first.report());
    assert_eq!(sum(&third).values(), [2.0; 4]);
}
