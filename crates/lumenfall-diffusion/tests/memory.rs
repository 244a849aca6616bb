//! The memory of LoRAs, as the allocator counts it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lumenfall_diffusion::{Callbacks, LoadOptions, LoraFile, ModelFiles, Parameters, Pipeline};
use peak_alloc::PeakAlloc;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The differences that do not count: lists of the thread pool that grow and shrink.
const NOISE: usize = 32 << 10;

/// Waits until no other test of this program runs.
fn alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn open(loras: Vec<LoraFile>) -> Pipeline {
    let mut options = LoadOptions::default();
    (options.threads, options.loras) = (Some(1), loras);
    Pipeline::open(&ModelFiles::Folder(golden().join("model")), &options).unwrap()
}

fn loras() -> Vec<LoraFile> {
    let names = ["peft", "dora", "lokr_rows", "lokr_columns", "t5"];
    names.map(|name| LoraFile::new(name, golden().join("lora").join(name).with_extension("safetensors"))).into()
}

fn run(pipeline: &Pipeline, strengths: &BTreeMap<String, f32>) {
    let mut parameters = Parameters::new("a star");
    (parameters.width, parameters.height, parameters.steps) = (Some(16), Some(16), Some(1));
    (parameters.t5_tokens, parameters.guidance.scale) = (Some(1), 1.0);
    parameters.loras = strengths.clone();
    pipeline.generate(&parameters, Callbacks::none()).unwrap();
}

#[test]
fn a_hundred_changes_of_strengths_leave_no_memory_behind() {
    let _alone = alone();
    let pipeline = open(loras());
    let mut usage = Vec::new();
    for swap in 0..100u16 {
        let strength = |index: u16| f32::from(swap * 7 + index * 5) % 11.0 / 5.0 - 1.0;
        let strengths = loras().into_iter().zip(0..).map(|(lora, index)| (lora.name, strength(index)));
        run(&pipeline, &strengths.collect());
        usage.push(ALLOCATOR.current_usage());
    }
    // The first requests fill the list of recent prompts.
    let (first, rest) = usage.split_at(20);
    let (first, rest) = (first.iter().max().unwrap(), rest.iter().max().unwrap());
    assert!(*rest <= first + NOISE, "{first} bytes grew to {rest}");
}

#[test]
fn loras_that_are_opened_and_closed_leave_no_memory_behind() {
    /// The number of pipelines after which the lists of the thread pool do not grow any more.
    const WARM_UP: usize = 20;
    let _alone = alone();
    let mut first = 0;
    for count in 0..100 {
        let is_fixed = count % 2 == 1;
        let loras = loras().into_iter().map(|lora| if is_fixed { lora.fixed() } else { lora });
        let pipeline = open(loras.collect());
        // Opening alone reads only headers.
        if count % 10 < 2 {
            run(&pipeline, &BTreeMap::new());
        }
        drop(pipeline);
        // The threads end in the background.
        let mut waited = 0;
        while count > WARM_UP && ALLOCATOR.current_usage() > first + NOISE {
            assert!(waited < 200, "{first} bytes grew to {} after {count} pipelines", ALLOCATOR.current_usage());
            std::thread::sleep(Duration::from_millis(10));
            waited += 1;
        }
        first = if count <= WARM_UP { ALLOCATOR.current_usage().max(first) } else { first };
    }
}

/// The layers of each block that the LoRA below changes.
const LAYERS: [&str; 7] = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj"];

/// Writes a LoRA of the golden model's attention with a rank, in f16. Its values are 0.
fn write_lora(path: &Path, rank: usize) {
    let zeros = vec![0; 2 * 32 * rank];
    let layers = (0..3).flat_map(|block| LAYERS.map(|layer| (block, layer)));
    let tensors = layers.flat_map(|(block, layer)| {
        let name = format!("transformer.transformer_blocks.{block}.attn.{layer}");
        let view = |shape: [usize; 2]| TensorView::new(Dtype::F16, shape.into(), &zeros).unwrap();
        [(format!("{name}.lora_A.weight"), view([rank, 32])), (format!("{name}.lora_B.weight"), view([32, rank]))]
    });
    std::fs::write(path, safetensors::serialize(tensors.collect::<Vec<_>>(), None).unwrap()).unwrap();
}

#[test]
fn loras_take_the_planned_memory() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lora.safetensors");
    // So large that the peak of a request is in the phase that has the LoRA, whatever the matrix products of others take.
    const RANK: usize = 32_768;
    write_lora(&path, RANK);
    // Returns the planned memory and the peak of a request. The pipelines are kept, because their threads would otherwise free
    // their memory during the next measurement: the matrix products of a thread keep as much as the processor's cache has.
    let mut kept = Vec::new();
    let mut measure = |loras: Vec<LoraFile>| {
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        let pipeline = open(loras);
        run(&pipeline, &BTreeMap::new());
        let peak = ALLOCATOR.peak_usage().saturating_sub(before);
        let planned = pipeline.summary(16, 16).unwrap().memory;
        kept.push(pipeline);
        (planned as f64, peak as f64)
    };
    measure(Vec::new());
    let (planned_without, peak_without) = measure(Vec::new());
    let lora = LoraFile::new("lora", &path);
    let (planned, peak) = measure(vec![lora.clone().strength(0.0)]);
    let (planned, peak) = (planned - planned_without, peak - peak_without);
    assert_eq!(planned, (3 * 7 * 2 * 2 * 32 * RANK) as f64);
    // While one of the 42 matrices is read, it is in memory twice.
    assert!(peak > 0.9 * planned && peak < 1.03 * planned, "{peak} of {planned} planned bytes");
    // A fixed one is in memory only while its layer is read.
    let (_, peak) = measure(vec![lora.fixed()]);
    assert!(peak - peak_without < 0.3 * planned, "{} of {planned} planned bytes", peak - peak_without);
}
