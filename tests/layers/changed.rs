//! A mock that differs.

use lumenfall::backend::{
    Backend, BoxFuture, ByteStream, Capabilities, Content, EditSpec, Estimate, GenerateSpec, Output, Request,
    RequestContext,
};
use lumenfall::testing::MockBackend;
use lumenfall::{Error, ErrorKind};

use crate::error;

/// A mock that differs from others in one way or another.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) mock: MockBackend,
    pub(crate) identity: Option<&'static str>,
    /// Whether it tells prices.
    pub(crate) estimate: bool,
    /// Whether asking for them costs something.
    pub(crate) billed: bool,
    pub(crate) currency: &'static str,
    /// What its addresses begin with; an empty text fits none.
    pub(crate) addresses: Option<&'static str>,
    /// Whether it answers with an address, whatever was asked for.
    pub(crate) answers_address: bool,
    /// How many images fewer than asked for it makes.
    pub(crate) missing: usize,
    /// Whether its images are none.
    pub(crate) makes_pages: bool,
}

impl Changed {
    pub(crate) fn new(mock: MockBackend) -> Self {
        Self {
            mock,
            identity: None,
            estimate: true,
            billed: false,
            currency: "USD",
            addresses: None,
            answers_address: false,
            missing: 0,
            makes_pages: false,
        }
    }
}

impl Backend for Changed {
    fn name(&self) -> &str {
        self.mock.name()
    }

    fn identity(&self) -> String {
        self.identity.map_or_else(|| self.mock.identity(), str::to_owned)
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = self.mock.capabilities();
        can.estimate = self.estimate;
        can.addresses = self.addresses.is_some();
        can
    }

    fn generate<'a>(&'a self, spec: GenerateSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(async move {
            let mut output = self.mock.generate(spec, context).await?;
            output.images.truncate(output.images.len() - self.missing);
            if self.makes_pages {
                output.images[0].content = Content::Bytes("<html>".into());
            }
            if self.answers_address {
                output.images[0].content = Content::Address("https://far.example/1.png".into());
            }
            Ok(output)
        })
    }

    fn edit<'a>(&'a self, spec: EditSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        self.mock.edit(spec, context)
    }

    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(async move {
            if !self.estimate {
                return Err(error(ErrorKind::Unsupported).with_maybe_billed(self.billed));
            }
            let mut estimate = self.mock.estimate(request, context).await?;
            estimate.total.currency = self.currency.into();
            Ok(estimate)
        })
    }

    fn fetch<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        let own = self.addresses.is_some_and(|start| !start.is_empty() && address.starts_with(start));
        let answer: Result<ByteStream, Error> =
            if own { Ok(Box::pin(futures_util::stream::empty())) } else { Err(error(ErrorKind::NotFound)) };
        Box::pin(std::future::ready(answer))
    }
}
