//! The wait that a service asks for.

use std::time::{Duration, SystemTime};

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde_json::{Map, Value};

use super::explanation::same;

/// Reads the wait in `retry-after-ms` (milliseconds) or `Retry-After` (seconds or an HTTP date).
pub(crate) fn read(headers: &HeaderMap) -> Option<Duration> {
    let header = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(wait) = header("retry-after-ms").and_then(|text| number(text, 0.001)) {
        return Some(wait);
    }
    let text = header(RETRY_AFTER.as_str())?;
    number(text, 1.0).or_else(|| {
        let date = |text| httpdate::parse_http_date(text).ok();
        // Relative to the service's clock if it is known, because the local clock may be wrong.
        let now = header(DATE.as_str()).and_then(date).unwrap_or_else(SystemTime::now);
        Some(date(text)?.duration_since(now).unwrap_or(Duration::ZERO))
    })
}

/// The names of fields that contain a wait, with their units in seconds.
const FIELDS: [(&str, f64); 4] =
    [("retry_after", 1.0), ("retry_after_ms", 0.001), ("retry_after_seconds", 1.0), ("retry_delay", 1.0)];

/// Reads the wait in an object of an error body: a number, or a text such as `30s`.
pub(crate) fn of_fields(fields: &Map<String, Value>) -> Option<Duration> {
    FIELDS.iter().find_map(|(wanted, unit)| {
        let (_, value) = fields.iter().find(|(name, _)| same(name, wanted))?;
        match value {
            Value::String(text) => number(text.trim().trim_end_matches('s'), *unit),
            value => number(&value.as_f64()?.to_string(), *unit),
        }
    })
}

fn number(text: &str, unit: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse::<f64>().ok()? * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(name: &'static str, value: &str) -> Option<Duration> {
        read(&HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]))
    }

    #[test]
    fn seconds_milliseconds_and_dates_are_read() {
        assert_eq!(wait("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("retry-after", "0.5"), Some(Duration::from_millis(500)));
        assert_eq!(wait("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(wait("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let read = wait("retry-after", &soon).unwrap();
        assert!((98..=100).contains(&read.as_secs()), "{read:?}");
    }

    #[test]
    fn a_date_is_relative_to_the_clock_of_the_service() {
        let header = |name: &'static str, value: &str| (name.parse().unwrap(), value.parse().unwrap());
        let headers =
            [header("date", "Sun, 06 Nov 1994 08:49:37 GMT"), header("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT")];
        assert_eq!(read(&HeaderMap::from_iter(headers)), Some(Duration::from_secs(60)));
    }

    #[test]
    fn invalid_values_are_ignored() {
        for text in ["", "soon", "-1", "NaN", "inf", "1e300"] {
            assert_eq!(wait("retry-after", text), None, "{text}");
        }
    }
}
