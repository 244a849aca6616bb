//! Encoded prompts. `tools/prompts_golden.py` computed the reference values of weighted, long and separate prompts with the code of
//! ComfyUI, AUTOMATIC1111's web interface and diffusers.

use std::fs;

use super::*;
use crate::lora::LoraFile;
use crate::parameters::PipelineOutput;
use crate::text::{LongPrompts, PromptCache, PromptWeights};

#[test]
fn conditioning_equals_that_of_diffusers() {
    for model in Model::ALL {
        assert_conditioning(model);
    }
}

fn assert_conditioning(model: Model) {
    let golden = model.golden("text");
    let parameters = &model.parameters()["text"];
    let t5_tokens = parameters["t5_length"].as_u64().unwrap() as usize;
    let prompts = parameters["prompts"].as_array().unwrap();
    let encoders = text_encoders(&model.files(), &Placement::default());
    let last = prompts.len() - 1;
    let reading = Reading { t5_tokens: Some(t5_tokens), ..Reading::default() };
    // The last prompt exceeds the length of all three encoders.
    for (i, count) in [(0, 0), (last, 3)] {
        let (texts, mut warnings) = (Texts::all(prompts[i].as_str().unwrap()), Vec::new());
        for _ in 0..2 {
            let encoded =
                encoders.encode(std::slice::from_ref(&texts), &reading, &mut warnings, &never_cancelled).unwrap();
            assert_close(&encoded[0].context, &golden.first(&format!("{i}.prompt_embeds")), COMPONENT_TOLERANCE);
            assert_close(&encoded[0].pooled, &golden.get(&format!("{i}.pooled_prompt_embeds")), COMPONENT_TOLERANCE);
        }
        assert_eq!(warnings.len(), 2 * count, "{warnings:?}");
    }

    let (_folder, without_t5) = model.files_without_t5();
    let encoders = text_encoders(&without_t5, &Placement::default());
    let encoded = encode(&encoders, &[prompts[0].as_str().unwrap()], t5_tokens, &never_cancelled).unwrap();
    assert_close(&encoded[0].context, &golden.first("no_t5.prompt_embeds"), COMPONENT_TOLERANCE);
    assert_close(&encoded[0].pooled, &golden.get("no_t5.pooled_prompt_embeds"), COMPONENT_TOLERANCE);
}

#[test]
fn a_prompt_that_was_encoded_recently_is_not_encoded_again() {
    let encoders = text_encoders(&files(), &Placement::default());
    let first = encode(&encoders, &["a star", "", ""], T5_TOKENS, &never_cancelled).unwrap();
    let checks = AtomicUsize::new(0);
    let count = || {
        checks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let again = encode(&encoders, &["", "a star"], T5_TOKENS, &count).unwrap();
    assert_eq!(checks.load(Ordering::Relaxed), 0);
    for (a, b) in [(&first[1], &again[0]), (&first[2], &again[0]), (&first[0], &again[1])] {
        assert_eq!(a.context.values(), b.context.values());
    }
    encode(&encoders, &["a star"], T5_TOKENS - 1, &count).unwrap();
    assert!(checks.load(Ordering::Relaxed) > 0);
}

#[test]
fn without_t5_its_tokens_can_be_omitted() {
    let (_folder, files) = Model::First.files_without_t5();
    let encoders = open_text_encoders(&files, WithoutT5::Omit, &Placement::default());
    let encoded = encode(&encoders, &["a star"], 256, &never_cancelled).unwrap();
    assert_eq!(encoded[0].context.shape(), [77, 64]);
}

#[test]
fn weighted_long_and_separate_prompts_equal_those_of_other_programs() {
    let golden = Golden::open("prompts");
    let cases = fs::read(folder().join("prompts.json")).unwrap();
    let cases: serde_json::Value = serde_json::from_slice(&cases).unwrap();
    let encoders = text_encoders(&files(), &Placement::default());
    for (name, case) in cases.as_object().unwrap() {
        let text = |encoder: &str| case[encoder].as_str().or(case["prompt"].as_str()).unwrap().to_owned();
        let texts = Texts { clip_l: text("prompt"), clip_g: text("prompt_2"), t5: text("prompt_3") };
        let reading = Reading {
            weights: serde_json::from_value(case["weights"].clone()).unwrap(),
            long_prompts: serde_json::from_value(case["long_prompts"].clone()).unwrap(),
            t5_tokens: Some(case["t5_tokens"].as_u64().unwrap() as usize),
            loras: Vec::new(),
        };
        let encoded = encoders.encode(&[texts], &reading, &mut Vec::new(), &never_cancelled).unwrap();
        println!("{name}");
        assert_close(&encoded[0].context, &golden.get(&format!("{name}.context")), COMPONENT_TOLERANCE);
        assert_close(&encoded[0].pooled, &golden.get(&format!("{name}.pooled")), COMPONENT_TOLERANCE);
    }
}

#[test]
fn prompts_of_different_lengths_are_used_together() {
    let pipeline = pipeline(&files());
    let draw = |change: &dyn Fn(&mut Parameters)| {
        let mut parameters = Parameters::new("a red circle on a white background, ".repeat(20));
        (parameters.width, parameters.height, parameters.steps) = (Some(32), Some(32), Some(1));
        (parameters.negative_prompt, parameters.t5_tokens) = (Some("blue".into()), Some(8));
        parameters.text.long_prompts = LongPrompts::Chunks;
        change(&mut parameters);
        pipeline.generate(&parameters, Callbacks::none()).unwrap()
    };
    let chunks = draw(&|_| {});
    let t5 = "exceeds T5's 8 tokens";
    assert!(chunks.warnings.len() == 1 && chunks.warnings[0].contains(t5), "{:?}", chunks.warnings);
    let truncated = draw(&|parameters| parameters.text.long_prompts = LongPrompts::Truncate);
    assert_eq!(truncated.warnings.len(), 3);
    let separate = draw(&|parameters| parameters.text.t5_negative_prompt = Some("a star".into()));
    assert!(chunks.images != truncated.images && chunks.images != separate.images);
}

#[test]
fn a_weight_without_an_effect_changes_no_bit_and_no_text_is_an_error() {
    let encoders = text_encoders(&files(), &Placement::default());
    let encode = |weights, prompt: &str| {
        let reading = Reading { weights, t5_tokens: Some(8), ..Reading::default() };
        encoders.encode(&[Texts::all(prompt)], &reading, &mut Vec::new(), &never_cancelled).unwrap().remove(0)
    };
    let plain = encode(PromptWeights::Off, "a star");
    for weights in [PromptWeights::ComfyUi, PromptWeights::A1111] {
        assert_eq!(encode(weights, "a star").context.values(), plain.context.values());
        for prompt in
            ["(a star:nan)", "(a star:1e400)", "(a star:-inf)", "(a:999999999) ((b:-1e38))", "(()", ")(", "(a:0)"]
        {
            let encoded = encode(weights, prompt);
            assert!(encoded.context.values().iter().all(|value| value.is_finite()), "{prompt}");
        }
    }
}

fn copied_model() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for part in fs::read_dir(folder().join("model")).unwrap().map(Result::unwrap).filter(|part| part.path().is_dir()) {
        fs::create_dir(copy.path().join(part.file_name())).unwrap();
        for file in fs::read_dir(part.path()).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), copy.path().join(part.file_name()).join(file.file_name())).unwrap();
        }
    }
    copy
}

/// Draws an image with a cache, after `before` was called with the folder of the opened model.
fn draw(
    cache: &PromptCache,
    before: impl Fn(&std::path::Path),
    change: impl Fn(&mut Parameters),
) -> crate::error::Result<PipelineOutput> {
    let copy = copied_model();
    // It changes both CLIP encoders.
    let lora = LoraFile::new("kohya", folder().join("lora/kohya.safetensors")).strength(0.0);
    let prompt_cache = Some(cache.clone());
    let options = LoadOptions { device: Device::Cpu, prompt_cache, loras: vec![lora], ..LoadOptions::default() };
    let pipeline = Pipeline::open(&ModelFiles::Folder(copy.path().into()), &options).unwrap();
    before(copy.path());
    let mut parameters = Parameters::new("a star (of many words)");
    (parameters.width, parameters.height, parameters.steps) = (Some(32), Some(32), Some(1));
    (parameters.negative_prompt, parameters.t5_tokens) = (Some("blue".into()), Some(4));
    change(&mut parameters);
    pipeline.generate(&parameters, Callbacks::none())
}

/// Replaces the weights of the text encoders by NaN, which is an error when a layer reads them.
fn spoil_encoders(model: &std::path::Path) {
    for part in ["text_encoder", "text_encoder_2", "text_encoder_3"] {
        for file in fs::read_dir(model.join(part)).unwrap().map(|file| file.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "safetensors") {
                let mut bytes = fs::read(&file).unwrap();
                let start = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
                bytes[start..].fill(0xff);
                fs::write(file, bytes).unwrap();
            }
        }
    }
}

#[test]
fn a_stored_prompt_needs_no_text_encoder() {
    let folder = tempfile::tempdir().unwrap();
    let cache = PromptCache::new(folder.path().join("new/prompts"));
    let first = draw(&cache, |_| {}, |_| {}).unwrap();
    assert!(first.warnings.len() == 1 && first.warnings[0].contains("T5"), "{:?}", first.warnings);
    let again = draw(&cache, spoil_encoders, |_| {}).unwrap();
    assert!(again.images == first.images);
    assert_eq!(again.warnings, first.warnings);

    let changes: [fn(&mut Parameters); 6] = [
        |parameters| parameters.loras = [("kohya".into(), 0.5)].into(),
        |parameters| parameters.prompt = "a moon".into(),
        |parameters| parameters.t5_tokens = Some(5),
        |parameters| parameters.text.weights = PromptWeights::ComfyUi,
        |parameters| parameters.text.long_prompts = LongPrompts::Chunks,
        |parameters| parameters.text.t5_prompt = Some("a moon".into()),
    ];
    for change in changes {
        let error = draw(&cache, spoil_encoders, change).unwrap_err().to_string();
        assert!(error.contains("not finite"), "{error}");
    }
}

#[test]
fn the_empty_prompt_is_stored_until_a_file_of_the_model_changes() {
    let cache = tempfile::tempdir().unwrap();
    let prompts = cache.path().join("prompts");
    let copy = copied_model();
    let weights = copy.path().join("text_encoder/model.safetensors");
    let files = ModelFiles::Folder(copy.path().into());
    let options = LoadOptions { device: Device::Cpu, ..LoadOptions::default() };
    let open = |folder: &std::path::Path| {
        let mut pipeline = Pipeline::open(&files, &options).unwrap();
        pipeline.store_empty_prompt(&files, &options, folder.into());
        pipeline
    };
    let draw = |pipeline: &Pipeline, prompt: &str| {
        let mut parameters = Parameters::new(prompt);
        (parameters.width, parameters.height, parameters.steps) = (Some(32), Some(32), Some(1));
        pipeline.generate(&parameters, Callbacks::none())
    };
    // A file is where the folder should be.
    let unused = draw(&open(&weights), "a star").unwrap();
    assert_eq!(unused.warnings, [""; 0]);
    let first = draw(&open(&prompts), "a star").unwrap();
    assert!(first.images == unused.images);
    assert_eq!(fs::read_dir(&prompts).unwrap().count(), 1, "the prompt itself is not stored");
    let empty = draw(&open(&prompts), "").unwrap();

    let known = open(&prompts);
    let time = fs::metadata(&weights).unwrap().modified().unwrap() + std::time::Duration::from_secs(1);
    fs::File::options().write(true).open(&weights).unwrap().set_modified(time).unwrap();
    let changed = open(&prompts);
    spoil_encoders(copy.path());
    assert!(draw(&known, "").unwrap().images == empty.images);
    for (pipeline, prompt) in [(known, "a star"), (changed, "")] {
        let error = draw(&pipeline, prompt).unwrap_err().to_string();
        assert!(error.contains("not finite"), "{error}");
    }
}

#[test]
fn a_corrupt_stored_prompt_is_replaced_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let cache = PromptCache::new(folder.path());
    let first = draw(&cache, |_| {}, |_| {}).unwrap();
    let stored: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(stored.len(), 2);
    let content = fs::read(&stored[0]).unwrap();
    // Every part of the file: the length of the header, the header, and the values.
    for change in [3, 20, 100, 200, content.len() - 1, content.len()] {
        let mut corrupt = content.clone();
        match corrupt.get_mut(change) {
            Some(byte) => *byte ^= 2,
            None => corrupt.truncate(change / 2),
        }
        fs::write(&stored[0], corrupt).unwrap();
        let again = draw(&cache, |_| {}, |_| {}).unwrap();
        assert!(again.images == first.images);
        let (warnings, name) = (&again.warnings, stored[0].display().to_string());
        assert!(warnings.len() == 2 && warnings.iter().any(|text| text.contains(&name)), "{change}: {warnings:?}");
        assert!(fs::read(&stored[0]).unwrap() == content);
    }
    // A file of another prompt.
    fs::copy(&stored[1], &stored[0]).unwrap();
    assert_eq!(draw(&cache, |_| {}, |_| {}).unwrap().warnings.len(), 2);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn the_stored_prompts_whose_last_use_is_the_longest_ago_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), [0; 100_000]).unwrap();
    let prompts = |cache: &PromptCache, prompt: &str| {
        let encode = |parameters: &mut Parameters| {
            (parameters.prompt, parameters.guidance) = (prompt.into(), Guidance::new(1.0))
        };
        let no_negative = |parameters: &mut Parameters| {
            encode(parameters);
            parameters.negative_prompt = None;
        };
        draw(cache, |_| {}, no_negative).unwrap().warnings
    };
    let unlimited = PromptCache::new(folder.path());
    prompts(&unlimited, "a");
    let path = |name: &str| {
        fs::read_dir(folder.path())
            .unwrap()
            .map(|file| file.unwrap().path())
            .find(|path| path.to_string_lossy().contains(name))
            .unwrap()
    };
    let first = path("prompt-");
    let length = fs::metadata(&first).unwrap().len();
    let cache = unlimited.clone().max_bytes(length * 5 / 2);
    let pause = || std::thread::sleep(std::time::Duration::from_millis(20));
    pause();
    prompts(&cache, "b");
    pause();
    // This is the last use of the first file.
    prompts(&cache, "a");
    pause();
    prompts(&cache, "c");
    assert!(first.exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);

    let small = unlimited.max_bytes(100);
    let warnings = prompts(&small, "d");
    assert!(warnings.len() == 1 && warnings[0].contains("was not stored"), "{warnings:?}");
}
