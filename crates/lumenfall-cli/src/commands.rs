//! The commands.

use std::env;
use std::path::Path;

use lumenfall::backend::{EditSpec, GenerateSpec, Request};
use lumenfall::images::typed::{Draft, Spec};
#[cfg(feature = "gpu")]
use lumenfall::local::GpuInfo;
use lumenfall::local::{Local, PartSummary, Recipe};
use lumenfall::remote::{Remote, RemoteBuilder};
use lumenfall::stable_diffusion_3_5_medium::SCHEMA;
use lumenfall::{Client, Error, ErrorKind, Inline, Input};
use serde_json::json;

use crate::arguments::{Arguments, Command, Place, expand_home, usage};
use crate::files::Files;
use crate::progress::ProgressLine;
use crate::report::Report;

/// Runs the command.
pub(crate) async fn run(arguments: &Arguments) -> Result<Report, Error> {
    match arguments.command {
        Command::Generate => save(generate(arguments)?.inline(), arguments).await,
        Command::Edit => save(edit(arguments)?.inline(), arguments).await,
        Command::Repeat => save(repeat(arguments).await?, arguments).await,
        Command::Estimate => estimate(generate(arguments)?).await,
        Command::Models => models(arguments).await,
        Command::Devices => devices(),
    }
}

fn client(arguments: &Arguments) -> Result<Client, Error> {
    let mut builder = match &arguments.place {
        Place::Demo => Local::demo_builder(),
        Place::Folder(folder, device) => Local::builder(folder).device(device.clone()),
        Place::Remote => return remote(arguments).map(Client::new),
    };
    if let Some(folder) = &arguments.prompt_cache {
        builder = builder.prompt_cache(folder);
    }
    for (name, file) in &arguments.loras {
        builder = builder.lora(name, file);
    }
    builder.open().map(Client::new)
}

fn remote(arguments: &Arguments) -> Result<Remote, Error> {
    let mut builder = RemoteBuilder::from_env();
    if let Some(url) = &arguments.base_url {
        builder = builder.base_url(url);
    }
    if arguments.without_key {
        builder = builder.without_key();
    }
    // The library's messages for these two cases name functions and features.
    let configuration = |message: &str| Err(Error::new(ErrorKind::Configuration, message));
    let is_set = |variable: &str| env::var_os(variable).is_some_and(|value| !value.is_empty());
    let url = arguments.base_url.clone().or_else(|| env::var("LUMENFALL_BASE_URL").ok()).unwrap_or_default();
    if cfg!(not(any(feature = "rustls", feature = "native-tls"))) && !url.trim().starts_with("http://") {
        return configuration("this program was built without TLS; build it without `--no-default-features`");
    }
    if !arguments.without_key && !is_set("LUMENFALL_API_KEY") {
        return configuration(
            "there is no API key; set the environment variable LUMENFALL_API_KEY, or use `--without-key` if the server \
             needs none",
        );
    }
    builder.build()
}

fn generate(arguments: &Arguments) -> Result<Draft<GenerateSpec>, Error> {
    let prompt = match arguments.positionals.as_slice() {
        // The library then reports that the prompt is missing.
        [] => String::new(),
        [prompt] => prompt.to_str().ok_or_else(|| usage("the prompt is not valid Unicode"))?.to_owned(),
        [_, second, ..] => return Err(usage(format!("unexpected argument {second:?}; put the prompt in quotes"))),
    };
    let spec = GenerateSpec::new(SCHEMA.id, prompt);
    Ok(with_options(client(arguments)?.images().generate_spec(spec), arguments))
}

fn edit(arguments: &Arguments) -> Result<Draft<EditSpec>, Error> {
    let sources: Vec<Input> = arguments.positionals.iter().cloned().map(expand_home).map(Input::path).collect();
    let mut spec = EditSpec::new(SCHEMA.id, sources);
    spec.prompt = arguments.prompt.clone();
    spec.mask = arguments.mask.clone().map(Input::path);
    Ok(with_options(client(arguments)?.images().edit_spec(spec), arguments))
}

async fn repeat(arguments: &Arguments) -> Result<Draft<Request, Inline>, Error> {
    let [file] = arguments.positionals.as_slice() else {
        return Err(usage("`repeat` requires one image file"));
    };
    if arguments.options.local.loras.is_some() {
        return Err(usage("`repeat` uses the strengths in the image file; write `--lora FILE` without a strength"));
    }
    let recipe = Recipe::read(expand_home(file.clone())).await?;
    let mut draft = client(arguments)?.images().repeat(recipe)?;
    match draft.spec_mut() {
        Request::Edit(_) if arguments.source.is_none() => {
            return Err(usage(
                "the image was edited; name its source with `--source FILE`, and its mask with `--mask FILE`",
            ));
        }
        Request::Edit(spec) => {
            spec.images = arguments.source.clone().map(Input::path).into_iter().collect();
            spec.mask = arguments.mask.clone().map(Input::path);
        }
        _ if arguments.source.is_some() || arguments.mask.is_some() => {
            return Err(usage("the image was not edited, so it has no `--source` or `--mask`"));
        }
        _ => {}
    }
    Ok(with_timeout(draft, arguments))
}

fn with_options<S: Spec>(mut draft: Draft<S>, arguments: &Arguments) -> Draft<S> {
    *draft.spec_mut().options_mut() = arguments.options.clone();
    with_timeout(draft, arguments)
}

fn with_timeout<S: Spec, D>(draft: Draft<S, D>, arguments: &Arguments) -> Draft<S, D> {
    match arguments.timeout {
        Some(timeout) => draft.timeout(timeout),
        None => draft,
    }
}

/// Sends the request and saves its images.
async fn save<S: Spec>(mut draft: Draft<S, Inline>, arguments: &Arguments) -> Result<Report, Error> {
    // Before the request, because images that cannot be saved are billed too.
    let files = Files::check(arguments.output.as_deref())?;
    let options = draft.spec_mut().options_mut();
    options.output_format = options.output_format.or(files.format());
    let progress = ProgressLine::start(&arguments.place);
    let images = draft.on_progress(progress.callback()).send().await;
    drop(progress);
    let images = images?;
    // Images are numbered even if only one of several was received.
    let count = images.len().max(arguments.options.n.unwrap_or(1) as usize);
    let (mut saved, mut failed) = (Vec::with_capacity(images.len()), None);
    for (index, image) in images.iter().enumerate() {
        match image.save(files.path(index, count, image.format())).await {
            Ok(file) => saved.push(file),
            // The other images are saved nevertheless.
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    match failed {
        Some(error) => Err(error.with_maybe_billed(arguments.may_be_billed())),
        None => Ok(Report::images(&images, &saved)),
    }
}

async fn estimate(draft: Draft<GenerateSpec>) -> Result<Report, Error> {
    let estimate = draft.estimate().await?;
    let text = format!("{}\n", estimate.total);
    let json = json!({
        "cost": estimate.total, "provider": estimate.provider, "model": estimate.model,
    });
    Ok(Report { text, notes: Vec::new(), json })
}

async fn models(arguments: &Arguments) -> Result<Report, Error> {
    let (ids, notes) = match &arguments.place {
        Place::Remote => {
            let models = remote(arguments)?.models().list().await?;
            (models.into_iter().map(|model| model.id).collect(), vec![])
        }
        Place::Folder(path, _) => return model(path),
        Place::Demo => (
            vec!["demo".to_owned()],
            vec![
                "`demo` is the default: a small demonstration model that draws shapes, letters and digits with 128x128 pixels.".into(),
                "Use `--model PATH` for the weights of Stable Diffusion 3.5 Medium: a folder, or a safetensors or GGUF file.".into(),
                "Run `lumenfall models --remote` to list the models of the gateway.".into(),
            ],
        ),
    };
    let text = ids.iter().map(|id: &String| format!("{id}\n")).collect();
    Ok(Report { text, notes, json: json!({ "models": ids }) })
}

/// Describes a model on this computer.
fn model(path: &Path) -> Result<Report, Error> {
    let local = Local::open(path)?;
    let side = local.default_side();
    let summary = local.inspect(side, side)?;
    let formats = |part: &PartSummary| {
        let counts: Vec<String> = part.formats.iter().map(|(format, count)| format!("{count} {format}")).collect();
        counts.join(", ")
    };
    let mut text = format!("{}: {}\n", path.display(), summary.architecture);
    for part in &summary.parts {
        let (name, file, bytes) = (part.part.name(), part.path.display(), part.bytes as f64 / 1e9);
        let (millions, formats) = (part.weights as f64 / 1e6, formats(part));
        text += &format!("  {name}: {millions:.1} million weights, {bytes:.2} GB ({formats}), {file}\n");
    }
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let (all, least) = (gib(summary.memory), gib(summary.least_memory));
    text += &format!("  memory for {side}x{side} pixels: {all:.1} GiB, or slower with at least {least:.1} GiB\n");
    let unused = summary.parts.iter().filter(|part| !part.unused.is_empty());
    let notes =
        unused.map(|part| format!("warning: the {} has unused tensors: {}", part.part.name(), part.unused.join(", ")));
    let parts: Vec<_> = summary
        .parts
        .iter()
        .map(|part| {
            json!({
                "part": part.part.name(), "path": part.path, "weights": part.weights, "bytes": part.bytes,
                "formats": part.formats, "unused": part.unused,
            })
        })
        .collect();
    let json = json!({
        "models": [path], "architecture": summary.architecture, "parts": parts, "memory": summary.memory, "least_memory": summary.least_memory,
    });
    Ok(Report { text, notes: notes.collect(), json })
}

/// Lists the GPUs.
#[cfg(feature = "gpu")]
fn devices() -> Result<Report, Error> {
    let devices = Local::devices();
    let line = |device: &GpuInfo| {
        let GpuInfo { index, name, kind, api, driver, .. } = device;
        let memory =
            device.memory.map_or("unknown".into(), |bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)));
        let f16 = if device.f16 { "f16" } else { "no f16" };
        let used = |matrices: Option<u32>| matrices.map_or("f32".into(), |side| format!("matrices {side}x{side}"));
        let (products, attention) = (used(device.matrices), used(device.attention_matrices));
        let note = device.note.as_deref().unwrap_or_default();
        format!("{index}\t{name}\t{kind}\t{api}\t{driver}\t{memory}\t{f16}\t{products}\t{attention}\t{note}\n")
    };
    let notes = match devices.is_empty() {
        true => vec!["There is no GPU with a Vulkan, Metal or DX12 driver. Images are generated on the CPU.".into()],
        false => Vec::new(),
    };
    let json = |device: &GpuInfo| {
        json!({
            "index": device.index, "name": device.name, "kind": device.kind.to_string(), "api": device.api,
            "driver": device.driver, "memory": device.memory, "max_buffer": device.max_buffer, "f16": device.f16,
            "matrices": device.matrices, "attention_matrices": device.attention_matrices, "note": device.note,
        })
    };
    let json = json!({ "devices": devices.iter().map(json).collect::<Vec<_>>() });
    Ok(Report { text: devices.iter().map(line).collect(), notes, json })
}

#[cfg(not(feature = "gpu"))]
fn devices() -> Result<Report, Error> {
    let message =
        "this program was built without the feature `gpu`, so it uses the CPU; build it with `--features gpu`";
    Err(Error::new(ErrorKind::Configuration, message))
}
