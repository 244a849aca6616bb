//! LoRAs with a fixed strength.

use lumenfall_kernels::Values;

use super::*;
use crate::checkpoint::{Checkpoint, tests as layouts};
use crate::layers::Linear;
use crate::lora::Loras;
use crate::lora::delta::Delta;
use crate::placement::MemoryBudget;
use crate::weights::layout::PartKind;

const ALL: [(&str, f32); 6] =
    [("peft", 0.8), ("rslora", -0.6), ("dora", 0.7), ("lokr_rows", 0.5), ("lokr_columns", -0.4), ("t5", 1.0)];

fn files(loras: &[(&str, f32)]) -> Vec<LoraFile> {
    loras.iter().map(|(name, strength)| LoraFile::new(*name, golden(name)).strength(*strength)).collect()
}

fn fixed(loras: &[(&str, f32)]) -> Vec<LoraFile> {
    files(loras).into_iter().map(LoraFile::fixed).collect()
}

#[track_caller]
fn assert_same_latents(actual: &Pipeline, expected: &Pipeline) {
    let difference = difference(&latents(actual, &[]), &latents(expected, &[]));
    assert!(difference < 1e-4, "the latents differ by {difference}");
}

/// Loads all layers that LoRAs change.
fn changed_layers(mut checkpoint: Checkpoint, files: &[LoraFile]) -> (Loras, Vec<Linear>) {
    let loras = Loras::open(files, &mut checkpoint).unwrap();
    let mut layers = Vec::new();
    for part in [PartKind::Denoiser, PartKind::ClipL, PartKind::ClipG, PartKind::T5] {
        let weights = checkpoint.weights(part).unwrap();
        for layer in weights.adapters.keys() {
            let names = [layer.clone(), format!("text_model.{layer}")];
            let shape = |name: &String| weights.shape(&format!("{name}.weight"));
            let (name, shape) = names.iter().find_map(|name| Some((name, shape(name)?))).unwrap();
            let (scope, inputs) = (weights.root().at(name), shape.iter().skip(1).product());
            let layer = Linear::new(scope.values("weight", shape).unwrap(), inputs, shape[0], None);
            layers.push(layer.adapted(&scope).unwrap());
        }
    }
    (loras, layers)
}

fn golden_checkpoint() -> Checkpoint {
    Checkpoint::open(&ModelFiles::Folder(folder().join("model"))).unwrap()
}

#[test]
fn an_image_with_fixed_strengths_is_the_same_as_with_strengths_of_its_request() {
    for loras in [&ALL[..], &[("kohya", 1.0)]] {
        assert_same_latents(&open(fixed(loras)).unwrap(), &open(files(loras)).unwrap());
    }
    assert_same(&latents(&open(fixed(&[("peft", 0.8), ("rslora", -0.6)])).unwrap(), &[]), "both");
}

#[test]
fn fixed_and_other_loras_of_a_layer_do_not_depend_on_each_other() {
    let expected = open(files(&ALL[..3])).unwrap();
    // The factors of a DoRA are those of the model's weight. Other LoRAs do not need that weight.
    for kept in 0..3 {
        let files = files(&ALL[..3]).into_iter().enumerate();
        let files = files.map(|(index, file)| if index == kept { file } else { file.fixed() });
        assert_same_latents(&open(files.collect()).unwrap(), &expected);
    }
}

#[test]
fn layers_with_f32_weights_have_no_changes_at_run_time() {
    let (loras, layers) = changed_layers(golden_checkpoint(), &fixed(&ALL));
    assert!(layers.len() > 50 && !layers.iter().any(Linear::has_adapters), "of {} layers", layers.len());
    assert!(loras.bytes() > 50_000 && loras.bytes_in_use() == 0);
    let (loras, layers) = changed_layers(golden_checkpoint(), &files(&ALL));
    assert!(layers.iter().all(Linear::has_adapters));
    assert_eq!(loras.bytes_in_use(), loras.bytes());
}

#[test]
fn the_memory_of_changes_is_that_of_their_values() {
    for name in ["peft", "kohya", "dora", "lokr", "lokr_rows", "lokr_columns", "rslora", "t5"] {
        let (loras, _) = changed_layers(golden_checkpoint(), &files(&[(name, 1.0)]));
        let size = |values: &Values| match values {
            Values::F32(values) => size_of_val(values.as_slice()),
            Values::Encoded(_, bytes) => bytes.len(),
            Values::Scaled(..) => panic!("a LoRA has no scaled values"),
        };
        let changes = loras.adapters.iter().flatten().map(|adapter| adapter.change.get().unwrap());
        let sizes = changes.map(|change| {
            let delta = match &change.delta {
                Some(Delta::LowRank(delta)) => size(&delta.down) + size(&delta.up),
                Some(Delta::Kronecker(delta)) => 4 * (delta.left.len() + delta.right.len()),
                None => 0,
            };
            let factors = change.factors.as_ref().map_or(0, |(_, factors)| factors.len());
            delta + 4 * (factors + change.bias.as_ref().map_or(0, Vec::len))
        });
        assert_eq!(loras.bytes(), sizes.sum::<usize>() as u64, "{name}");
    }
}

#[test]
fn streamed_blocks_have_the_changes_of_fixed_strengths() {
    let resident = open(fixed(&ALL)).unwrap();
    let least = resident.summary(96, 96).unwrap().least_memory;
    let memory = MemoryBudget::GiB(least as f64 / f64::from(1 << 30));
    let options = LoadOptions { loras: fixed(&ALL), memory, ..LoadOptions::default() };
    let streamed = Pipeline::open(&ModelFiles::Folder(folder().join("model")), &options).unwrap();
    assert_eq!(latents(&streamed, &[]), latents(&resident, &[]));
}

#[test]
fn quantised_weights_are_changed_at_run_time() {
    let (_, layers) = changed_layers(layouts::quantised(), &fixed(&[("peft", 1.0)]));
    assert!(layers.iter().any(Linear::has_adapters));
    let open = |loras| Pipeline::new(layouts::quantised(), &LoadOptions { loras, ..LoadOptions::default() }).unwrap();
    assert_same_latents(&open(fixed(&ALL)), &open(files(&ALL)));
}

#[test]
fn biases_are_merged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lora.safetensors");
    File::new().with("transformer.proj_out.diff_b", &[64], 0.5).write(&path);
    let lora = || LoraFile::new("lora", &path).strength(0.5);
    let fixed = open(vec![lora().fixed()]).unwrap();
    assert_same_latents(&fixed, &open(vec![lora()]).unwrap());
    assert!(difference(&latents(&fixed, &[]), &expected("none")) > 0.01);
}

#[test]
fn another_strength_than_the_fixed_one_is_refused_by_name() {
    let pipeline = open(fixed(&[("rslora", 0.5)])).unwrap();
    let run = |strength: f32| {
        let loras = BTreeMap::from([("rslora".to_owned(), strength)]);
        let parameters =
            Parameters { steps: Some(1), guidance: Guidance::new(1.0), loras, ..Parameters::new("a star") };
        pipeline.generate(&parameters, Callbacks::none())
    };
    assert_eq!(run(0.5).unwrap().parameters.loras, BTreeMap::from([("rslora".to_owned(), 0.5)]));
    let error = run(1.0).unwrap_err().to_string();
    assert_eq!(
        error,
        "`loras` sets the strength 1 for `rslora`, which was opened with the fixed strength 0.5; leave it out, or open the \
         LoRA without a fixed strength"
    );
}
