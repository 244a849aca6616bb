//! A cache on disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::fs;

use crate::backend::layer::Layer;
use crate::backend::*;
use crate::error::{Error, ErrorKind};
use crate::images::save;
use crate::values::{Input, OutputFormat, ResponseFormat, expand_home};

/// Stores the results of seeded requests in a folder, and returns them again at no cost. Feature `cache`.
///
/// Requests without a seed ([`Sampling::seed`](crate::Sampling::seed)) are not cached, because each should return
/// different images. The cache key is the SHA-256 hash of the whole request, input images included, and of the backend's
/// [identity](Backend::identity). The headers of a call ([`RequestContext::headers`]) are not part of the key, because they
/// usually identify a call or its caller, and do not change images. Set a header that changes images with the builder of the
/// backend, such as [`RemoteBuilder::header`](crate::remote::RemoteBuilder::header): it is part of the identity.
///
/// The metadata of a cached result has the backend `cache`, a cost of 0 and no attempts. What describes the images is kept:
/// provider, model, fingerprint, parameters, size, format, time, generator, steps and warnings.
///
/// The cache returns bytes even if URLs were requested. [`Image::save`](crate::Image::save) and
/// [`Image::download`](crate::Image::download) work with both.
///
/// A result is not stored if it has fewer images than requested or an image in an unknown format. A corrupt entry is
/// ignored and replaced. The folder can be deleted at any time.
#[derive(Clone, Debug)]
#[must_use]
pub struct Cache<B> {
    inner: B,
    folder: PathBuf,
}

/// The first part of a cache file, in JSON. The images follow it without separators.
#[derive(Serialize, Deserialize)]
struct Entry {
    images: Vec<EntryImage>,
    metadata: Box<Metadata>,
}

#[derive(Serialize, Deserialize)]
struct EntryImage {
    length: usize,
    revised_prompt: Option<String>,
    seed: Option<u64>,
}

impl<B: Backend> Cache<B> {
    /// Wraps `inner` to store its results in `folder`, which is created if necessary. A leading `~` stands for
    /// the home directory.
    pub fn new(inner: B, folder: impl Into<PathBuf>) -> Self {
        Self { inner, folder: expand_home(&folder.into()).into_owned() }
    }

    async fn run(&self, mut request: Request, context: RequestContext) -> Result<Output, Error> {
        let options = request.options_mut();
        // JSON cannot represent other numbers, so the key would not contain them. The backend rejects them.
        let finite =
            [options.sampling.guidance, options.sampling.strength].iter().flatten().all(|value| value.is_finite());
        if options.sampling.seed.is_none() || !finite {
            return self.inner.send(request, context).await;
        }
        let requested = options.n.unwrap_or(1).max(1) as usize;
        // The images do not depend on the response format, so it is not part of the key.
        let format = options.response_format.take();
        context.check_deadline()?;
        let key = key(&self.inner.identity(), &mut request).await?;
        // Subfolders keep the number of files per folder small.
        let path = self.folder.join(key.get(..2).unwrap_or_default()).join(key);
        if let Some(output) = read(&path).await {
            return Ok(output);
        }
        request.options_mut().response_format = format;
        let deadline = context.deadline;
        let original = self.inner.send(request, context).await?;
        let mut output = match fetch::all(&self.inner, original.clone(), deadline).await {
            Ok(output) => output,
            Err(error) if format == Some(ResponseFormat::B64Json) => return Err(error),
            Err(_) => return Ok(original),
        };
        let is_image =
            |image: &&ImageData| matches!(&image.content, Content::Bytes(bytes) if OutputFormat::of(bytes).is_some());
        if output.images.iter().filter(is_image).count() >= requested
            && let Err(error) = write(&path, &output).await
        {
            output.metadata.warnings.push(format!("the result was not cached: {error}"));
        }
        Ok(output)
    }
}

/// Reads a cache file: the SHA-256 hash of the rest, the entry, and the images.
async fn read(path: &Path) -> Option<Output> {
    let mut file = Bytes::from(fs::read(path).await.ok()?);
    let hash = file.split_to(file.len().min(Sha256::output_size()));
    if Sha256::digest(&file)[..] != hash[..] {
        return None;
    }
    let mut entries = serde_json::Deserializer::from_slice(&file).into_iter::<Entry>();
    let Entry { images, metadata } = entries.next()?.ok()?;
    let mut rest = file.slice(entries.byte_offset()..);
    let images = images.into_iter().map(|EntryImage { length, revised_prompt, seed }| {
        let bytes = (length <= rest.len()).then(|| rest.split_to(length))?;
        Some(ImageData { content: Content::Bytes(bytes), revised_prompt, seed })
    });
    Some(Output { images: images.collect::<Option<_>>()?, metadata })
}

async fn write(path: &Path, output: &Output) -> Result<(), Error> {
    if let Some(folder) = path.parent() {
        save::create_folder(folder).await?;
    }
    let (mut images, mut parts) = (Vec::new(), Vec::new());
    for ImageData { content, revised_prompt, seed } in &output.images {
        let Content::Bytes(bytes) = content else { continue };
        images.push(EntryImage { length: bytes.len(), revised_prompt: revised_prompt.clone(), seed: *seed });
        parts.push(bytes.clone());
    }
    // The call that reads the entry sends nothing, so what describes this call does not apply to it.
    let metadata = Box::new(Metadata {
        backend: "cache".into(),
        cost: Some(Cost::nothing()),
        lost_bills: 0,
        attempts: 0,
        gateway_retries: None,
        request_id: None,
        urls_expire: None,
        elapsed: Duration::ZERO,
        ..*output.metadata.clone()
    });
    let entry = json(&Entry { images, metadata })?;
    let hash = parts.iter().fold(Sha256::new().chain_update(&entry), Sha256::chain_update).finalize();
    let head = [Bytes::copy_from_slice(&hash), entry.into()];
    save::stream(path, Box::pin(stream::iter(head.into_iter().chain(parts).map(Ok)))).await.map(drop)
}

/// Returns the hash of everything that determines the images. The length of each part is hashed, too, so that different
/// parts cannot result in the same bytes. Files are replaced by their bytes in the request, so that a file that changes
/// afterwards is not sent under the old key.
async fn key(backend: &str, request: &mut Request) -> Result<String, Error> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(b"lumenfall cache 5");
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
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::new(ErrorKind::InvalidRequest, error.to_string()))
}

impl<B: Backend> Layer for Cache<B> {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    /// Returns the identity of the inner backend, because this layer does not change images.
    fn layer_identity(&self) -> String {
        self.inner.identity()
    }

    fn layer_send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(request, context))
    }
}
