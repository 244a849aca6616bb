//! The images of a response.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use futures_util::stream;

use super::{expiry, save};
use crate::backend::{Backend, ByteStream, Content, ImageData, Metadata, Output, fetch};
use crate::error::{Error, ErrorKind};
use crate::values::{OutputFormat, ResponseFormat};

/// Marks images that were requested as temporary URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosted {}

/// Marks images that were requested as bytes, with `.inline()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inline {}

/// How images were requested: [`Hosted`] or [`Inline`].
pub trait Delivery: fmt::Debug + Send + Sync + 'static {
    /// The value of the parameter `response_format`.
    const RESPONSE_FORMAT: ResponseFormat;

    /// The content of an image: always bytes, or bytes or a URL.
    type Content: Clone + Into<Content> + Send + Sync;

    /// Converts the content, or returns the URL if bytes are missing.
    #[doc(hidden)]
    fn from_content(content: Content) -> Result<Self::Content, String>;
}

impl Delivery for Hosted {
    const RESPONSE_FORMAT: ResponseFormat = ResponseFormat::Url;
    type Content = Content;

    /// A server may return bytes although URLs were requested. They are kept, because they have been paid for.
    fn from_content(content: Content) -> Result<Content, String> {
        Ok(match content {
            Content::Unfetched(url) => Content::Url(url),
            content => content,
        })
    }
}

impl Delivery for Inline {
    const RESPONSE_FORMAT: ResponseFormat = ResponseFormat::B64Json;
    type Content = Bytes;

    fn from_content(content: Content) -> Result<Bytes, String> {
        match content {
            Content::Bytes(bytes) => Ok(bytes),
            Content::Url(url) | Content::Unfetched(url) => Err(url),
        }
    }
}

/// Images whose bytes are in memory, because they were requested with `.inline()`.
#[diagnostic::on_unimplemented(
    message = "this image was requested as a URL, so its bytes are not in the response",
    label = "an `Image<Hosted>` has no bytes in memory",
    note = "call `.inline()` on the request before `.send()` to receive bytes",
    note = "or download the image: `image.download().await?` into memory, `image.save(path).await?` to a file"
)]
pub trait HasBytes: Delivery<Content = Bytes> {}
impl HasBytes for Inline {}

/// Images that have a URL, because they were requested without `.inline()`.
#[diagnostic::on_unimplemented(
    message = "this image was requested as bytes with `.inline()`, so it has no URL",
    label = "an `Image<Inline>` has no URL",
    note = "remove `.inline()` from the request to receive URLs",
    note = "or read the bytes: `image.bytes()`"
)]
pub trait HasUrl: Delivery<Content = Content> {}
impl HasUrl for Hosted {}

/// The images of a response, at least one, with its [`metadata`](Self::metadata).
///
/// Dereferences to a slice of [`Image`]s in the order of the response.
///
/// ```no_run
/// # async fn run(images: lumenfall::Images<lumenfall::Inline>) -> Result<(), lumenfall::Error> {
/// println!("{} images, cost {:?}", images.len(), images.metadata().cost);
/// for (i, image) in images.iter().enumerate() {
///     image.save(format!("{i}.png")).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Images<A: Delivery> {
    images: Vec<Image<A>>,
    unfetched: Vec<Image<Hosted>>,
    metadata: Box<Metadata>,
}

impl<A: Delivery> Images<A> {
    /// Converts the output of `backend`, which is also used to download images.
    ///
    /// If bytes were requested but the output contains URLs, the images are downloaded now. Those that cannot be
    /// downloaded are in [`unfetched`](Self::unfetched).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidResponse`] if the output has no image, or the error of a download if all downloads fail.
    pub async fn receive(backend: Arc<dyn Backend>, output: Output) -> Result<Self, Error> {
        Self::receive_before(None, &backend, output).await
    }

    /// Like [`receive`](Self::receive), with a deadline for the downloads.
    pub(crate) async fn receive_before(
        deadline: Option<Instant>,
        backend: &Arc<dyn Backend>,
        output: Output,
    ) -> Result<Self, Error> {
        let Output { images: all, metadata } = match A::RESPONSE_FORMAT {
            ResponseFormat::B64Json => fetch::all(&**backend, output, deadline).await?,
            ResponseFormat::Url => output,
        };
        if all.is_empty() {
            let error = Error::new(ErrorKind::InvalidResponse, "the response contains no image");
            return Err(error.with_bills(metadata.bills()));
        }
        let (mut images, mut unfetched) = (Vec::new(), Vec::new());
        for ImageData { content, revised_prompt, seed } in all {
            let (urls_expire, backend) = (metadata.urls_expire, Arc::clone(backend));
            match A::from_content(content) {
                Ok(content) => images.push(Image { content, revised_prompt, seed, urls_expire, backend }),
                Err(url) => {
                    unfetched.push(Image { content: Content::Url(url), revised_prompt, seed, urls_expire, backend })
                }
            }
        }
        Ok(Self { images, unfetched, metadata })
    }

    /// Returns the images that were requested as bytes but could not be downloaded. They have been paid for, and
    /// [`save`](Image::save) or [`download`](Image::download) may succeed until their URLs expire.
    pub fn unfetched(&self) -> &[Image<Hosted>] {
        &self.unfetched
    }

    /// Returns information about the request, such as its provider, cost and id.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl<A: Delivery> Deref for Images<A> {
    type Target = [Image<A>];

    fn deref(&self) -> &[Image<A>] {
        &self.images
    }
}

impl<A: Delivery> IntoIterator for Images<A> {
    type Item = Image<A>;
    type IntoIter = std::vec::IntoIter<Image<A>>;

    fn into_iter(self) -> Self::IntoIter {
        self.images.into_iter()
    }
}

impl<'a, A: Delivery> IntoIterator for &'a Images<A> {
    type Item = &'a Image<A>;
    type IntoIter = std::slice::Iter<'a, Image<A>>;

    fn into_iter(self) -> Self::IntoIter {
        self.images.iter()
    }
}

/// A generated image: its bytes or its URL. Clones share the bytes.
#[derive(Clone)]
pub struct Image<A: Delivery> {
    content: A::Content,
    revised_prompt: Option<String>,
    seed: Option<u64>,
    urls_expire: Option<SystemTime>,
    backend: Arc<dyn Backend>,
}

impl<A: Delivery> Image<A> {
    /// Returns the encoded image, whose clones share the memory. Only for images that were requested with `.inline()`.
    pub fn bytes(&self) -> &Bytes
    where
        A: HasBytes,
    {
        &self.content
    }

    /// Returns the temporary URL. Only for images that were requested without `.inline()`.
    ///
    /// Returns `None` if the backend returned bytes although a URL was requested; [`save`](Self::save) and
    /// [`download`](Self::download) use these bytes. The URL may contain a signature, so treat it as a secret until it
    /// expires.
    pub fn url(&self) -> Option<&str>
    where
        A: HasUrl,
    {
        match &self.content {
            Content::Url(url) => Some(url),
            Content::Bytes(_) | Content::Unfetched(_) => None,
        }
    }

    /// Returns when the [URL](Self::url) expires, according to its signature or else to the service's documentation.
    /// Returns `None` if neither is known, or if the image has no URL.
    pub fn expires_at(&self) -> Option<SystemTime>
    where
        A: HasUrl,
    {
        expiry::of_url(self.url()?).or(self.urls_expire)
    }

    /// Returns the encoded image, and downloads it if necessary.
    ///
    /// # Errors
    /// The error of the download, for example [`ErrorKind::NotFound`] if the URL has expired, or
    /// [`ErrorKind::InvalidResponse`] if the response is empty, HTML or JSON.
    pub async fn download(&self) -> Result<Bytes, Error> {
        match self.content.clone().into() {
            Content::Bytes(bytes) => Ok(bytes),
            Content::Url(url) | Content::Unfetched(url) => fetch::bytes(&*self.backend, &url).await,
        }
    }

    /// Writes the encoded image to `path`, and streams it from its URL if necessary.
    ///
    /// An existing file is replaced. The image is written to a temporary file in the same folder, which is renamed at the
    /// end. So the file at `path` is complete or unchanged, even after an error or if the future is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], with the path, if the file cannot be written, and the errors of [`download`](Self::download).
    pub async fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let chunks: ByteStream = match self.content.clone().into() {
            Content::Bytes(bytes) => Box::pin(stream::iter([Ok(bytes)])),
            Content::Url(url) | Content::Unfetched(url) => fetch::stream(&*self.backend, &url).await?,
        };
        save::stream(path.as_ref(), chunks).await
    }

    /// Returns the prompt that the service used instead of the requested one.
    pub fn revised_prompt(&self) -> Option<&str> {
        self.revised_prompt.as_deref()
    }

    /// Returns the seed of this image, if the backend reports it.
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// Returns the file format, detected from the bytes. Returns `None` if the format is unknown or the image has a URL.
    pub fn format(&self) -> Option<OutputFormat> {
        match self.content.clone().into() {
            Content::Bytes(bytes) => OutputFormat::of(&bytes),
            Content::Url(_) | Content::Unfetched(_) => None,
        }
    }

    /// Returns the media type, such as `image/png`, of the [`format`](Self::format).
    pub fn media_type(&self) -> Option<&'static str> {
        self.format().map(OutputFormat::media_type)
    }
}

impl<A: Delivery> fmt::Debug for Image<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("content", &Into::<Content>::into(self.content.clone()))
            .field("revised_prompt", &self.revised_prompt)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
