//! Answers kept on disk.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::fs;

use super::{inner_does_the_rest, run_both_modes};
use crate::backend::{Backend, Content, Cost, EditSpec, ImageData, Metadata, Output, Request, RequestContext};
use crate::error::{Error, ErrorKind};
use crate::images::{Input, OutputFormat, ResponseFormat, fetch, save};

/// Keeps the answers to seeded requests in a folder and gives them again.
///
/// Only a request with a seed (`Sampling::seed`) has one right answer;
/// others pass through. An entry is found by the SHA-256 of the whole request, input images included, and
/// of the backend's [identity](Backend::identity). The cache holds bytes, so it answers with bytes even where addresses were asked for:
/// `save` and `download` work all the same.
///
/// An answer from the cache costs nothing. One with fewer images than were asked for, or with something in none of the five
/// formats, is not kept. A damaged entry counts as none. The folder may be deleted at any time.
#[derive(Clone, Debug)]
pub struct Cache<B> {
    inner: B,
    folder: PathBuf,
}

/// What is kept beside the images of an answer.
#[derive(Serialize, Deserialize)]
struct Entry {
    images: Vec<EntryImage>,
    provider: Option<String>,
    model: Option<String>,
    created: Option<u64>,
    steps: Option<u32>,
    warnings: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct EntryImage {
    file: String,
    sha256: String,
    revised_prompt: Option<String>,
    seed: Option<u64>,
}

impl<B: Backend> Cache<B> {
    /// Keeps the answers of `inner` in `folder`, which is made when it is first needed.
    pub fn new(inner: B, folder: impl Into<PathBuf>) -> Self {
        Self { inner, folder: folder.into() }
    }

    async fn run(&self, mut request: Request, context: RequestContext) -> Result<Output, Error> {
        let options = request.options_mut();
        // What is no number has no place in a key, and the backend will refuse it.
        let finite =
            [options.sampling.guidance, options.sampling.strength].iter().flatten().all(|value| value.is_finite());
        if options.sampling.seed.is_none() || !finite {
            return request.send(&self.inner, context).await;
        }
        let asked = options.n.unwrap_or(1) as usize;
        // How the answer is to come does not decide what it is.
        let format = options.response_format.replace(ResponseFormat::B64Json);
        context.check_deadline()?;
        let key = key(&self.inner.identity(), &mut request).await?;
        if let Some(output) = self.look_up(&key).await {
            return Ok(output);
        }
        request.options_mut().response_format = format;
        let deadline = context.deadline;
        let made = request.send(&self.inner, context).await?;
        let mut output = match fetch::all(&self.inner, made.clone(), deadline).await {
            Ok(output) => output,
            // Whoever asked for addresses can have them.
            Err(_) if format != Some(ResponseFormat::B64Json) => return Ok(made),
            Err(error) => return Err(error),
        };
        // What is missing now, or is no image, may come next time.
        let come = output.images.iter().filter(|image| is_image(&image.content)).count();
        if come < asked {
            return Ok(output);
        }
        // The images are made and paid for: a full disk is no reason to lose them.
        if let Err(error) = self.keep(&key, &output).await {
            output.metadata.warnings.push(format!("the answer was not kept: {error}"));
        }
        Ok(output)
    }

    /// Entries are spread over folders, since many files in one are slow to list.
    fn folder(&self, key: &str) -> PathBuf {
        self.folder.join(key.get(..2).unwrap_or_default())
    }

    async fn look_up(&self, key: &str) -> Option<Output> {
        let folder = self.folder(key);
        let entry = fs::read(folder.join(format!("{key}.json"))).await.ok()?;
        let entry: Entry = serde_json::from_slice(&entry).ok()?;
        let mut images = Vec::with_capacity(entry.images.len());
        for EntryImage { file, sha256, revised_prompt, seed } in entry.images {
            // The name comes from a file that anybody may have written.
            let name = Path::new(&file).file_name().filter(|name| *name == file.as_str())?;
            let bytes = fs::read(folder.join(name)).await.ok()?;
            if hex(&Sha256::digest(&bytes)) != sha256 {
                return None;
            }
            images.push(ImageData { content: Content::Bytes(bytes.into()), revised_prompt, seed });
        }
        let Entry { images: _, provider, model, created, steps, warnings } = entry;
        let metadata = Metadata {
            backend: "cache".into(),
            provider,
            model,
            cost: Some(Cost::nothing()),
            created,
            steps,
            warnings,
            ..Metadata::default()
        };
        (!images.is_empty()).then(|| Output::new(images, metadata))
    }

    async fn keep(&self, key: &str, output: &Output) -> Result<(), Error> {
        let folder = self.folder(key);
        fs::create_dir_all(&folder).await.map_err(|error| {
            Error::new(ErrorKind::Io, format!("cannot make the folder {}: {error}", folder.display()))
        })?;
        let mut images = Vec::with_capacity(output.images.len());
        for (i, ImageData { content, revised_prompt, seed }) in output.images.iter().enumerate() {
            let Content::Bytes(bytes) = content else { continue };
            let file = format!("{key}-{i}");
            save::bytes(&folder.join(&file), bytes).await?;
            let sha256 = hex(&Sha256::digest(bytes));
            images.push(EntryImage { file, sha256, revised_prompt: revised_prompt.clone(), seed: *seed });
        }
        let Metadata { provider, model, created, steps, warnings, .. } = *output.metadata.clone();
        let entry = serde_json::to_vec(&Entry { images, provider, model, created, steps, warnings })
            .map_err(|error| Error::new(ErrorKind::Io, "the entry cannot be written").with_source(error))?;
        // Last, so that an entry is never seen before its images.
        save::bytes(&folder.join(format!("{key}.json")), &entry).await
    }
}

fn is_image(content: &Content) -> bool {
    matches!(content, Content::Bytes(bytes) if OutputFormat::of(bytes).is_some())
}

/// The hash of everything that decides the answer. Each part goes with its length, so that no two
/// requests run together to the same bytes. The images are read for it, and the request has their bytes from then on:
/// a file that changes meanwhile must not be sent under the key of its former content.
async fn key(backend: &str, request: &mut Request) -> Result<String, Error> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(b"lumenfall cache 2");
    part(backend.as_bytes());
    match request {
        Request::Generate(spec) => {
            part(b"generate");
            part(&json(spec)?);
        }
        Request::Edit(EditSpec { model, images, mask, prompt, options }) => {
            part(b"edit");
            part(&json(&(model, prompt, options, mask.is_some()))?);
            for input in images.iter_mut().chain(mask) {
                let bytes = input.read().await?;
                part(&bytes);
                *input = Input::bytes(bytes);
            }
        }
    }
    Ok(hex(&hash.finalize()))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::new(ErrorKind::InvalidRequest, error.to_string()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl<B: Backend> Backend for Cache<B> {
    run_both_modes!();
    inner_does_the_rest!();
}
