//! The expiry time of signed URLs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns when the signature of `url` expires, if its query contains the time.
///
/// Reads the parameters of Amazon S3 and compatible services (`X-Amz-Date`, `X-Amz-Expires`), Google Cloud Storage
/// (`X-Goog-Date`, `X-Goog-Expires`), and CloudFront and older S3 (`Expires`, in seconds since 1970).
pub(crate) fn of_url(url: &str) -> Option<SystemTime> {
    let query = url.split_once('?')?.1.split('#').next()?;
    let parameter = |wanted: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    let seconds = |wanted: &str| parameter(wanted)?.parse().ok().map(Duration::from_secs);
    let signed_for = |from: &str, lifetime: &str| date(parameter(from)?)?.checked_add(seconds(lifetime)?);
    signed_for("X-Amz-Date", "X-Amz-Expires")
        .or_else(|| signed_for("X-Goog-Date", "X-Goog-Expires"))
        .or_else(|| UNIX_EPOCH.checked_add(seconds("Expires")?))
}

/// Parses a date in the format `20261124T080000Z`.
fn date(text: &str) -> Option<SystemTime> {
    let mut text = text.to_owned();
    for (at, separator) in [(13, ':'), (11, ':'), (6, '-'), (4, '-')] {
        text.is_char_boundary(at).then(|| text.insert(at, separator))?;
    }
    humantime::parse_rfc3339(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_read_from_every_kind_of_signature_and_malformed_expiry_is_ignored() {
        // `date -u -d '2026-11-24 08:00:00' +%s` prints 1795507200.
        for (query, expected) in [
            ("?X-Amz-Algorithm=x&X-Amz-Date=20261124T080000Z&X-Amz-Expires=3600", Some(1_795_510_800)),
            ("?x-goog-date=20240229T235959Z&x-goog-expires=60#part", Some(1_709_251_259)),
            ("?Expires=1795507200&Signature=s", Some(1_795_507_200)),
            ("", None),
            ("?Expires=soon", None),
            ("?Expires=-1", None),
            ("?Expires=18446744073709551615", None),
            ("?X-Amz-Date=20261124T080000Z", None),
            ("?X-Amz-Expires=3600", None),
            ("?X-Amz-Date=20261324T080000Z&X-Amz-Expires=3600", None),
            ("?X-Amz-Date=éééééééé&X-Amz-Expires=3600", None),
        ] {
            let expires = of_url(&format!("https://a.example/a.png{query}"));
            assert_eq!(expires, expected.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)), "{query}");
        }
    }
}
