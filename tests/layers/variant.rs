//! A mock backend with unusual features.

use lumenfall::backend::{
    Backend, BoxFuture, ByteStream, Capabilities, Estimate, ImageData, Output, Request, RequestContext,
};
use lumenfall::testing::MockBackend;
use lumenfall::{Error, ErrorKind};

use crate::error;

/// Delegates to `mock`, except for the fields that are set.
#[derive(Debug, Default)]
pub(crate) struct Variant {
    pub(crate) mock: MockBackend,
    pub(crate) identity: Option<&'static str>,
    /// Estimates fail, and may have been billed or not.
    pub(crate) estimate_fails_billed: Option<bool>,
    pub(crate) currency: Option<&'static str>,
    pub(crate) change_images: Option<fn(&mut Vec<ImageData>)>,
    /// The prefix of the URLs that can be downloaded. Others fail with `NotFound`.
    pub(crate) served_urls: Option<&'static str>,
}

impl Backend for Variant {
    fn name(&self) -> &str {
        self.mock.name()
    }

    fn identity(&self) -> String {
        self.identity.map_or_else(|| self.mock.identity(), str::to_owned)
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.mock.capabilities();
        capabilities.estimate = self.estimate_fails_billed.is_none();
        capabilities.urls = self.served_urls.is_some();
        capabilities
    }

    fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(async move {
            let mut output = self.mock.send(request, context).await?;
            self.change_images.into_iter().for_each(|change| change(&mut output.images));
            Ok(output)
        })
    }

    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(async move {
            if let Some(billed) = self.estimate_fails_billed {
                return Err(error(ErrorKind::Unsupported).with_maybe_billed(billed));
            }
            let mut estimate = self.mock.estimate(request, context).await?;
            estimate.total.currency = self.currency.unwrap_or("USD").into();
            Ok(estimate)
        })
    }

    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        let served = self.served_urls.is_some_and(|prefix| url.starts_with(prefix));
        let stream: ByteStream = Box::pin(futures_util::stream::empty());
        Box::pin(std::future::ready(if served { Ok(stream) } else { Err(error(ErrorKind::NotFound)) }))
    }
}
