//! Images that come out of a request.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use super::{OutputFormat, ResponseFormat};
use super::{expiry, fetch, save};
use crate::backend::{Backend, Content, ImageData, Metadata, Output};
use crate::error::{Bills, Error, ErrorKind};

/// Marks images that were asked for as temporary addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {}

/// Marks images that were asked for as bytes inside the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inline {}

/// How images were asked for: [`Address`] or [`Inline`].
///
/// The trait is sealed: there is no third way.
pub trait Delivery: sealed::Held + fmt::Debug + Send + Sync + 'static {
    /// The value of the parameter `response_format` that asks for it.
    const RESPONSE_FORMAT: ResponseFormat;
}

impl Delivery for Address {
    const RESPONSE_FORMAT: ResponseFormat = ResponseFormat::Url;
}

impl Delivery for Inline {
    const RESPONSE_FORMAT: ResponseFormat = ResponseFormat::B64Json;
}

/// Images whose bytes are in memory: those asked for with `.inline()`.
#[diagnostic::on_unimplemented(
    message = "the bytes of this image are not in the answer: it was asked for as an address",
    label = "an `Image<Address>` has no bytes to read",
    note = "call `.inline()` on the request before `.send()` to get the bytes inside the answer",
    note = "or fetch them: `image.download().await?` into memory, `image.save(path).await?` to disk"
)]
pub trait HasBytes: Delivery + sealed::Held<Held = Bytes> {}
impl HasBytes for Inline {}

/// Images that lie at an address: those asked for without `.inline()`.
#[diagnostic::on_unimplemented(
    message = "this image has no address: it was asked for as bytes with `.inline()`",
    label = "an `Image<Inline>` has no address to read",
    note = "leave `.inline()` out of the request to get addresses",
    note = "or read the bytes that are already here: `image.bytes()`"
)]
pub trait HasAddress: Delivery + sealed::Held<Held = Content> {}
impl HasAddress for Address {}

mod sealed {
    use bytes::Bytes;

    use crate::backend::Content;

    /// What an image of this delivery holds.
    pub trait Held: Sized {
        type Held: Clone + Send + Sync;

        /// Or where the image lies instead.
        fn hold(content: Content) -> Result<Self::Held, String>;
        /// A cheap copy: bytes are shared.
        fn content(held: &Self::Held) -> Content;
    }

    /// Either: a server may send bytes although addresses were asked for, and they are paid for.
    impl Held for super::Address {
        type Held = Content;

        fn hold(content: Content) -> Result<Content, String> {
            Ok(match content {
                Content::Unfetched(address) => Content::Address(address),
                content => content,
            })
        }

        fn content(held: &Content) -> Content {
            held.clone()
        }
    }

    impl Held for super::Inline {
        type Held = Bytes;

        fn hold(content: Content) -> Result<Bytes, String> {
            match content {
                Content::Bytes(bytes) => Ok(bytes),
                Content::Address(address) | Content::Unfetched(address) => Err(address),
            }
        }

        fn content(held: &Bytes) -> Content {
            Content::Bytes(held.clone())
        }
    }
}

/// The images of one answer, in the order of their making. Never empty.
///
/// It is a slice of [`Image`]s with the answer's [`metadata`](Self::metadata) beside it.
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
    unfetched: Vec<Image<Address>>,
    metadata: Box<Metadata>,
}

impl<A: Delivery> Images<A> {
    /// Takes over a backend's answer.
    ///
    /// Where bytes were asked for and addresses came, they are fetched through `backend`,
    /// which also serves later downloads. One that cannot be fetched now is [`unfetched`](Self::unfetched).
    ///
    /// # Errors
    /// Where the answer holds no image, or none that can be fetched.
    pub async fn receive(backend: Arc<dyn Backend>, output: Output) -> Result<Self, Error> {
        Self::receive_before(None, &backend, output).await
    }

    /// As [`receive`](Self::receive), until the deadline.
    pub(crate) async fn receive_before(
        deadline: Option<Instant>,
        backend: &Arc<dyn Backend>,
        output: Output,
    ) -> Result<Self, Error> {
        match A::RESPONSE_FORMAT {
            ResponseFormat::B64Json => Self::new(backend, fetch::all(&**backend, output, deadline).await?),
            ResponseFormat::Url => Self::new(backend, output),
        }
    }

    fn new(backend: &Arc<dyn Backend>, output: Output) -> Result<Self, Error> {
        let Output { images: data, metadata } = output;
        if data.is_empty() {
            let bills = Bills { tries: metadata.lost_bills.saturating_add(1), made: true };
            return Err(Error::new(ErrorKind::InvalidResponse, "the answer holds no image").with_bills(bills));
        }
        let mut images = Vec::with_capacity(data.len());
        let mut unfetched = Vec::new();
        for ImageData { content, revised_prompt, seed } in data {
            let about = About { revised_prompt, seed, addresses_expire: metadata.addresses_expire };
            match A::hold(content) {
                Ok(held) => images.push(Image::new(held, about, backend)),
                Err(address) => unfetched.push(Image::new(Content::Address(address), about, backend)),
            }
        }
        if images.is_empty() {
            let bills = Bills { tries: metadata.lost_bills.saturating_add(1), made: true };
            let error = Error::new(ErrorKind::InvalidResponse, "none of the images could be fetched from its address");
            let addresses = unfetched.iter().filter_map(Image::url).map(str::to_owned);
            return Err(error.with_bills(bills).with_addresses(addresses));
        }
        Ok(Self { images, unfetched, metadata })
    }

    /// Images whose bytes were asked for, and which are paid for, but which could not be fetched from where the service put
    /// them: [`save`](Image::save) or [`download`](Image::download) may work later, while their addresses do.
    pub fn unfetched(&self) -> &[Image<Address>] {
        &self.unfetched
    }

    /// What is known of the making: provider, model, cost, request id, time.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The images alone.
    pub fn into_vec(self) -> Vec<Image<A>> {
        self.images
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

/// One image: its bytes, or where it lies.
///
/// Cloning is cheap: bytes are shared.
#[derive(Clone)]
pub struct Image<A: Delivery> {
    held: A::Held,
    about: About,
    backend: Arc<dyn Backend>,
    delivery: PhantomData<fn() -> A>,
}

/// What is known of an image besides its content.
#[derive(Clone)]
struct About {
    revised_prompt: Option<String>,
    seed: Option<u64>,
    addresses_expire: Option<SystemTime>,
}

impl<A: Delivery> Image<A> {
    fn new(held: A::Held, about: About, backend: &Arc<dyn Backend>) -> Self {
        Self { held, about, backend: Arc::clone(backend), delivery: PhantomData }
    }

    /// The encoded file. Only for images asked for with `.inline()`.
    pub fn bytes(&self) -> &Bytes
    where
        A: HasBytes,
    {
        &self.held
    }

    /// The encoded file, without copying it. Only for images asked for with `.inline()`.
    pub fn into_bytes(self) -> Bytes
    where
        A: HasBytes,
    {
        self.held
    }

    /// The temporary address. Only for images asked for without `.inline()`.
    ///
    /// `None` where the backend sent the bytes although an address was asked for: they are kept, and
    /// [`save`](Self::save) and [`download`](Self::download) give them. The address may carry a
    /// signature, so treat it as a secret while it lives.
    pub fn url(&self) -> Option<&str>
    where
        A: HasAddress,
    {
        match &self.held {
            Content::Address(address) => Some(address),
            Content::Bytes(_) | Content::Unfetched(_) => None,
        }
    }

    /// When the [address](Self::url) stops working: by its signature, where it has one that tells, else by what the
    /// service says of its addresses. `None` where nobody tells, or where the bytes are here already.
    pub fn expires_at(&self) -> Option<SystemTime>
    where
        A: HasAddress,
    {
        expiry::of_address(self.url()?).or(self.about.addresses_expire)
    }

    /// The encoded file, fetched from its address where it is not here yet.
    ///
    /// # Errors
    /// Where the address cannot be fetched, for example because it has expired, or what comes is empty or a page.
    pub async fn download(&self) -> Result<Bytes, Error> {
        match A::content(&self.held) {
            Content::Bytes(bytes) => Ok(bytes),
            Content::Address(address) | Content::Unfetched(address) => fetch::bytes(&*self.backend, &address).await,
        }
    }

    /// Writes the encoded file to `path`, streaming it from its address where it is not here yet.
    ///
    /// The file appears whole or not at all: it is written beside its place under another name and
    /// renamed at the end. A file that was there before is replaced.
    ///
    /// # Errors
    /// Where the file cannot be written ([`ErrorKind::Io`], which names the path), or as
    /// [`download`](Self::download).
    pub async fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        match A::content(&self.held) {
            Content::Bytes(bytes) => save::bytes(path, &bytes).await,
            Content::Address(address) | Content::Unfetched(address) => {
                save::stream(path, fetch::stream(&*self.backend, &address).await?).await
            }
        }
    }

    /// The prompt that the service used instead of the caller's.
    pub fn revised_prompt(&self) -> Option<&str> {
        self.about.revised_prompt.as_deref()
    }

    /// The seed that made this image, where the backend tells.
    pub fn seed(&self) -> Option<u64> {
        self.about.seed
    }

    /// The file format, by the bytes themselves; `None` while they lie at an address.
    pub fn format(&self) -> Option<OutputFormat> {
        match A::content(&self.held) {
            Content::Bytes(bytes) => OutputFormat::of(&bytes),
            Content::Address(_) | Content::Unfetched(_) => None,
        }
    }

    /// The media type, such as `image/png`, by the bytes themselves; `None` while they lie at an address.
    pub fn media_type(&self) -> Option<&'static str> {
        self.format().map(OutputFormat::media_type)
    }
}

impl<A: Delivery> fmt::Debug for Image<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("content", &A::content(&self.held))
            .field("revised_prompt", &self.about.revised_prompt)
            .field("seed", &self.about.seed)
            .finish_non_exhaustive()
    }
}
