//! Proxies. reqwest silently ignores a proxy that it does not support, so each one is checked before a request is sent.

use std::env;

use reqwest::{ClientBuilder, Proxy, Url};

use super::settings::configuration;
use crate::error::Error;

const VARIABLES: [&str; 6] = ["ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"];

/// Sets the explicit proxy, or else those of the system.
pub(crate) fn configure(builder: ClientBuilder, explicit: Option<&str>) -> Result<ClientBuilder, Error> {
    if let Some(url) = explicit {
        check("the proxy URL", url)?;
        return Ok(builder.proxy(Proxy::all(url).map_err(|_| configuration("the proxy URL is malformed"))?));
    }
    let variables = VARIABLES.iter().filter_map(|name| Some((name, env::var_os(name)?)));
    let mut has_variable = false;
    for (name, value) in variables.filter(|(_, value)| !value.is_empty()) {
        check(&format!("the proxy URL in the environment variable {name}"), value.to_str().unwrap_or_default())?;
        has_variable = true;
    }
    // On other systems than Windows and macOS, only the environment can configure a proxy. Without one, reqwest must not look
    // for a proxy at each request.
    let may_have_proxy = has_variable || cfg!(any(windows, target_os = "macos"));
    Ok(if may_have_proxy { builder } else { builder.no_proxy() })
}

/// Checks that reqwest supports a proxy. The messages do not quote the URL, which may contain a password.
fn check(what: &str, url: &str) -> Result<(), Error> {
    // Without a scheme it is the host of an HTTP proxy.
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let invalid = |why: &str| Err(configuration(format!("{what} {why}")).with_parameter("proxy"));
    match scheme {
        "http" | "socks4" | "socks4a" | "socks5" | "socks5h" => {}
        "https" if cfg!(any(feature = "_rustls", feature = "native-tls")) => {}
        "https" => return invalid("requires TLS; enable the feature `rustls`, `rustls-ring` or `native-tls`"),
        _ => {
            return invalid(
                "has an unsupported scheme; the schemes are http, https, socks4, socks4a, socks5 and socks5h",
            );
        }
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@[]/".contains(&byte);
    if !rest.bytes().all(is_allowed) {
        return invalid("contains a character that must be percent-encoded");
    }
    match Url::parse(&format!("http://{rest}")) {
        Ok(url) if url.path() == "/" => Ok(()),
        _ => invalid("is malformed; use a URL such as http://host:8080 or socks5h://user:password@host:1080"),
    }
}
