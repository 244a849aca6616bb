//! The images of a response.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use futures_util::{future, stream};

use super::{expiry, save};
use crate::backend::{Backend, ByteStream, Content, ImageData, Metadata, Output, fetch};
use crate::error::{Error, ErrorKind};
use crate::values::{OutputFormat, ResponseFormat, dimensions, expand_home};

/// Marks images that were requested as temporary URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosted {}

/// Marks images that were requested as bytes, with `.inline()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inline {}

/// Marks images whose response format is not part of their type, so that one type serves both: see [`Image::into_any`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Any {}

/// How images were requested: [`Hosted`], [`Inline`], or [`Any`] of the two.
pub trait Delivery: fmt::Debug + Send + Sync + 'static {
    /// The value of the parameter `response_format`, or `None` if the request decides.
    const RESPONSE_FORMAT: Option<ResponseFormat>;

    /// The content of an image: always bytes, or bytes or a URL.
    type Content: Clone + Into<Content> + Send + Sync;

    /// Converts the content, or returns the URL if bytes are missing.
    #[doc(hidden)]
    fn from_content(content: Content) -> Result<Self::Content, String>;
}

impl Delivery for Hosted {
    const RESPONSE_FORMAT: Option<ResponseFormat> = Some(ResponseFormat::Url);
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
    const RESPONSE_FORMAT: Option<ResponseFormat> = Some(ResponseFormat::B64Json);
    type Content = Bytes;

    fn from_content(content: Content) -> Result<Bytes, String> {
        match content {
            Content::Bytes(bytes) => Ok(bytes),
            Content::Url(url) | Content::Unfetched(url) => Err(url),
        }
    }
}

impl Delivery for Any {
    const RESPONSE_FORMAT: Option<ResponseFormat> = None;
    type Content = Content;

    /// An image that was requested as bytes but could not be downloaded has a URL.
    fn from_content(content: Content) -> Result<Content, String> {
        Hosted::from_content(content)
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

/// Images that may have a URL, because they were requested without `.inline()` or with either response format.
#[diagnostic::on_unimplemented(
    message = "this image was requested as bytes with `.inline()`, so it has no URL",
    label = "an `Image<Inline>` has no URL",
    note = "remove `.inline()` from the request to receive URLs",
    note = "or read the bytes: `image.bytes()`"
)]
pub trait HasUrl: Delivery<Content = Content> {}
impl HasUrl for Hosted {}
impl HasUrl for Any {}

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
    /// If `A` is [`Inline`] but the output contains URLs, the images are downloaded now. Those that cannot be downloaded are
    /// in [`unfetched`](Self::unfetched).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidResponse`] if the output has no image, or the error of a download if all downloads fail.
    pub async fn receive(backend: Arc<dyn Backend>, output: Output) -> Result<Self, Error> {
        Self::receive_before(A::RESPONSE_FORMAT, None, &backend, output).await
    }

    /// Like [`receive`](Self::receive), with the requested response format and a deadline for the downloads.
    pub(crate) async fn receive_before(
        requested: Option<ResponseFormat>,
        deadline: Option<Instant>,
        backend: &Arc<dyn Backend>,
        output: Output,
    ) -> Result<Self, Error> {
        let Output { images: all, metadata } = match requested {
            Some(ResponseFormat::B64Json) => fetch::all(&**backend, output, deadline).await?,
            Some(ResponseFormat::Url) | None => output,
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

    /// Converts the images into a type that does not depend on the response format; see [`Image::into_any`].
    pub fn into_any(self) -> Images<Any> {
        let Self { images, unfetched, metadata } = self;
        Images { images: images.into_iter().map(Image::into_any).collect(), unfetched, metadata }
    }

    /// Saves all images in the folder `folder`, concurrently, and returns their paths in the order of the images.
    ///
    /// The files are named `stem-1.png`, `stem-2.png` and so on, with the extensions of their formats. With 10 images or
    /// more, the numbers have leading zeros, so that the names sort in the order of the images. In all other respects, this
    /// is the same as [`Image::save_as`]. Images in [`unfetched`](Self::unfetched) are not saved.
    ///
    /// ```no_run
    /// # async fn run(images: lumenfall::Images<lumenfall::Hosted>) -> Result<(), lumenfall::Error> {
    /// for path in images.save_all("~/images", "lighthouse").await? {
    ///     println!("saved {}", path.display()); // /home/ada/images/lighthouse-1.png
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The same as [`Image::save_as`], for the first image that cannot be saved. All others are saved nevertheless.
    pub async fn save_all(&self, folder: impl AsRef<Path>, stem: impl AsRef<str>) -> Result<Vec<PathBuf>, Error> {
        let (folder, stem) = (folder.as_ref(), stem.as_ref());
        let width = self.len().to_string().len();
        // Checked here, because a number would turn `..` into a file name.
        save::check_stem(stem)?;
        let saves = self
            .iter()
            .enumerate()
            .map(|(index, image)| async move { image.save_as(folder, format!("{stem}-{:0width$}", index + 1)).await });
        future::join_all(saves).await.into_iter().collect()
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

    /// Returns the encoded image if it is in memory, and `None` if the image has a [`url`](Self::url).
    pub fn try_bytes(&self) -> Option<&Bytes>
    where
        A: HasUrl,
    {
        match &self.content {
            Content::Bytes(bytes) => Some(bytes),
            Content::Url(_) | Content::Unfetched(_) => None,
        }
    }

    /// Converts the image into a type that does not depend on the response format, for example to store images of requests
    /// with and without `.inline()` in one collection.
    ///
    /// ```
    /// use lumenfall::Image;
    /// use lumenfall::images::{Any, Hosted, Inline};
    ///
    /// fn collect(hosted: Image<Hosted>, inline: Image<Inline>) -> Vec<Image<Any>> {
    ///     vec![hosted.into_any(), inline.into_any()]
    /// }
    ///
    /// fn describe(image: &Image<Any>) -> String {
    ///     match (image.try_bytes(), image.url()) {
    ///         (Some(bytes), _) => format!("{} bytes", bytes.len()),
    ///         (None, url) => url.unwrap_or_default().to_owned(),
    ///     }
    /// }
    /// ```
    pub fn into_any(self) -> Image<Any> {
        let Self { content, revised_prompt, seed, urls_expire, backend } = self;
        Image { content: content.into(), revised_prompt, seed, urls_expire, backend }
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
    /// end. So the file at `path` is complete or unchanged, even after an error or if the future is dropped. A leading `~` in
    /// `path` stands for the home directory.
    ///
    /// The bytes are written unmodified, whatever the file extension is. If the extension stands for another format, the
    /// result contains a [`warning`](Saved::warning). [`save_as`](Self::save_as) selects the extension instead.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], with the path, if the file cannot be written, and the errors of [`download`](Self::download).
    pub async fn save(&self, path: impl AsRef<Path>) -> Result<Saved, Error> {
        let path = expand_home(path.as_ref()).into_owned();
        let format = save::stream(&path, self.chunks().await?).await?;
        Ok(Saved { warning: extension_warning(&path, format), path, format })
    }

    /// Writes the encoded image to a file in the folder `folder`, and returns its path. The file is named `stem` with the
    /// extension of the image's format, such as `.png`, or with `.bin` if the format is unknown.
    ///
    /// The folder is created if it does not exist. An existing file is replaced, and the file appears complete or not at
    /// all, as with [`save`](Self::save).
    ///
    /// ```no_run
    /// # async fn run(image: lumenfall::Image<lumenfall::Inline>) -> Result<(), lumenfall::Error> {
    /// let path = image.save_as("~/images", "lighthouse").await?;
    /// println!("saved {}", path.display()); // /home/ada/images/lighthouse.png
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if `stem` is not a file name, for example because it contains a path separator,
    /// [`ErrorKind::Io`], with the path, if the folder or the file cannot be written, and the errors of
    /// [`download`](Self::download).
    pub async fn save_as(&self, folder: impl AsRef<Path>, stem: impl AsRef<str>) -> Result<PathBuf, Error> {
        let (folder, stem) = (expand_home(folder.as_ref()), stem.as_ref());
        save::check_stem(stem)?;
        // Before the download, which is useless if the folder cannot be created.
        save::create_folder(&folder).await?;
        save::stream_as(&folder, stem, self.chunks().await?).await
    }

    /// Returns the encoded image, which is streamed from its URL if necessary.
    async fn chunks(&self) -> Result<ByteStream, Error> {
        match self.content.clone().into() {
            Content::Bytes(bytes) => Ok(Box::pin(stream::iter([Ok(bytes)]))),
            Content::Url(url) | Content::Unfetched(url) => fetch::stream(&*self.backend, &url).await,
        }
    }

    /// Returns the prompt that the service used instead of the requested one.
    pub fn revised_prompt(&self) -> Option<&str> {
        self.revised_prompt.as_deref()
    }

    /// Returns the seed of this image, if the backend reports it.
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// Returns the width and the height in pixels, read from the header of the encoded image. Returns `None` if the header is
    /// malformed or the image has a URL.
    pub fn dimensions(&self) -> Option<(u32, u32)> {
        match self.content.clone().into() {
            Content::Bytes(bytes) => dimensions(&bytes),
            Content::Url(_) | Content::Unfetched(_) => None,
        }
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

/// The result of [`Image::save`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// The path of the file, with the home directory in place of a leading `~`.
    pub path: PathBuf,
    /// The file format, detected from the bytes. `None` if it is unknown.
    pub format: Option<OutputFormat>,
    /// A message if the file extension stands for another format than that of the bytes. Other programs may not open such a
    /// file.
    pub warning: Option<String>,
}

/// Returns a message if the extension of `path` stands for another format than `format`. Extensions that do not stand for an
/// [`OutputFormat`] are not checked.
fn extension_warning(path: &Path, format: Option<OutputFormat>) -> Option<String> {
    let extension = path.extension()?.to_str()?;
    let expected = OutputFormat::from_extension(extension)?;
    if format == Some(expected) {
        return None;
    }
    let shown = path.display();
    Some(match format {
        Some(format) => format!(
            "{shown} contains a {format} image; rename it to end in `.{}`, or request the output format {expected}",
            format.extension()
        ),
        None => format!("{shown} does not contain a {expected} image; its format is unknown"),
    })
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
