//! The metadata in response headers.

use reqwest::header::HeaderMap;

/// Returns the value of the header `name` if it is text and not empty.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
}

/// The headers in which services and gateways send the id of a request, the most specific first.
const REQUEST_IDS: [&str; 20] = [
    "x-lumenfall-request-id",
    "x-fal-request-id",
    "x-litellm-call-id",
    "apim-request-id",
    "x-ms-request-id",
    "x-amzn-requestid",
    "x-amzn-request-id",
    "x-goog-request-id",
    "cf-aig-log-id",
    "helicone-id",
    "x-portkey-trace-id",
    "x-kong-request-id",
    "x-inference-request-id",
    "x-request-id",
    "request-id",
    "x-requestid",
    "x-correlation-id",
    "x-trace-id",
    "x-vercel-id",
    "cf-ray",
];

/// Returns the service's id of the request.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&str> {
    // A response has few headers, so this is much faster than a lookup of each name.
    let ids = headers.iter().filter_map(|(name, value)| {
        let rank = REQUEST_IDS.iter().position(|id| name == id)?;
        Some((rank, value.to_str().ok().filter(|text| !text.is_empty())?))
    });
    ids.min_by_key(|(rank, _)| *rank).map(|(_, id)| id)
}

/// Whether the response comes from a gateway that retries by itself.
pub(crate) fn is_of_retrying_gateway(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("x-litellm-"))
}

/// Returns how often the gateway reports that it has retried the request.
pub(crate) fn gateway_retries(headers: &HeaderMap) -> Option<u32> {
    text(headers, "x-litellm-attempted-retries")?.parse().ok()
}
