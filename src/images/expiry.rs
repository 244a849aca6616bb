//! When a signed address stops working, read from the address itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When the signature of `address` expires, where the address says so.
///
/// Known are the parameters of Amazon S3 (`X-Amz-Date`, `X-Amz-Expires`) and those who copy it, Google Cloud Storage
/// (`X-Goog-Date`, `X-Goog-Expires`), CloudFront and older S3 (`Expires`, in seconds since 1970), and Azure (`se`, a date).
pub(crate) fn of_address(address: &str) -> Option<SystemTime> {
    let query = address.split_once('?')?.1.split('#').next()?;
    let parameter = |wanted: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    let seconds = |wanted: &str| parameter(wanted)?.parse().ok().map(Duration::from_secs);
    let signed_for = |from: &str, lifetime: &str| date(parameter(from)?)?.checked_add(seconds(lifetime)?);
    signed_for("X-Amz-Date", "X-Amz-Expires")
        .or_else(|| signed_for("X-Goog-Date", "X-Goog-Expires"))
        .or_else(|| UNIX_EPOCH.checked_add(seconds("Expires")?))
        .or_else(|| date(&parameter("se")?.replace("%3A", ":").replace("%3a", ":")))
}

/// An ISO 8601 date in UTC, basic (`20261124T080000Z`) or extended (`2026-11-24T08:00:00Z`), not before 1970.
fn date(text: &str) -> Option<SystemTime> {
    let digits: String = text.strip_suffix('Z')?.chars().filter(|c| !matches!(c, '-' | ':' | 'T')).collect();
    if digits.len() != 14 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize, to: usize| digits.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60
    {
        return None;
    }
    // Years begin in March, so that the day that comes and goes is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_before_month = (153 * month + 2) / 5;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + days_before_month + day - 1;
    let days_before_1970 = 719_468;
    let seconds = ((days - days_before_1970) * 24 + hour) * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(address: &str) -> Option<u64> {
        Some(of_address(address)?.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn each_way_of_signing_is_read() {
        // `date -u -d '2026-11-24 08:00:00' +%s` is 1795507200.
        let s3 = "https://b.s3.example/a.png?X-Amz-Algorithm=x&X-Amz-Date=20261124T080000Z&X-Amz-Expires=3600&X-Amz-Signature=0";
        assert_eq!(seconds(s3), Some(1_795_507_200 + 3600));
        let google = "https://storage.example/a.png?x-goog-date=20240229T235959Z&x-goog-expires=60#part";
        assert_eq!(seconds(google), Some(1_709_251_199 + 60));
        assert_eq!(seconds("https://c.example/a.png?Expires=1795507200&Signature=s"), Some(1_795_507_200));
        assert_eq!(seconds("https://a.example/a.png?se=2026-11-24T08%3A00%3A00Z&sig=s"), Some(1_795_507_200));
    }

    #[test]
    fn what_is_no_date_says_nothing() {
        for query in [
            "",
            "?",
            "?Expires=",
            "?Expires=soon",
            "?Expires=-1",
            "?Expires=18446744073709551615",
            "?se=2026-13-24T08:00:00Z",
            "?se=0000-01-01T00:00:00Z",
            "?se=2026-11-24",
            "?se=ééééééé",
            "?X-Amz-Date=20261124T080000Z",
            "?X-Amz-Expires=3600",
        ] {
            assert_eq!(seconds(&format!("https://a.example/a.png{query}")), None, "{query}");
        }
    }
}
