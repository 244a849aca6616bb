//! Basic authentication (RFC 7617), with the user name and the password of a base URL.

use percent_encoding::percent_decode_str;
use reqwest::Url;
use reqwest::header::HeaderValue;

use super::settings::configuration;
use crate::error::Error;

/// The user name and the password of a URL. It has no `Debug`, so that it cannot be printed.
pub(crate) struct BasicAuth {
    /// The value of the header `Authorization`.
    pub(crate) header: HeaderValue,
    /// The forms of the password that a service may quote.
    pub(crate) secrets: Vec<String>,
}

impl BasicAuth {
    /// Removes the user name and the password from `url`, and returns them if there are any.
    pub(crate) fn take(url: &mut Url) -> Result<Option<Self>, Error> {
        let encoded = url.password().unwrap_or_default().to_owned();
        if url.username().is_empty() && encoded.is_empty() {
            return Ok(None);
        }
        let password: Vec<u8> = percent_decode_str(&encoded).collect();
        let user = percent_decode_str(url.username());
        let pair: Vec<u8> = user.chain(*b":").chain(password.iter().copied()).collect();
        let token = base64_simd::STANDARD.encode_to_string(pair);
        let invalid = || configuration("the user name of the base URL cannot be used").with_parameter("base_url");
        let mut header = HeaderValue::from_str(&format!("Basic {token}")).map_err(|_| invalid())?;
        header.set_sensitive(true);
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| invalid())?;
        let decoded = String::from_utf8_lossy(&password).into_owned();
        Ok(Some(Self { header, secrets: vec![token, encoded, decoded] }))
    }
}
