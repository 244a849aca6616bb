//! Preparation of external text for messages.

use crate::remote::secrets::Secrets;

/// The maximum length of a message. Longer ones are HTML pages or base64 data.
const MAX_MESSAGE: usize = 500;
/// The maximum length of a word. Longer ones are data.
const MAX_WORD: usize = 160;

/// Returns a short text without secrets, URL queries (which may contain a signature) and data.
pub(crate) fn message(text: &str, secrets: &Secrets) -> String {
    // Secrets are replaced first: truncation could leave the start of one.
    let text = secrets.redact(text);
    let words: Vec<String> = head(&text, 4 * MAX_MESSAGE).split_whitespace().map(word).collect();
    let text = words.join(" ");
    match head(&text, MAX_MESSAGE) {
        whole if whole.len() == text.len() => text,
        part => format!("{part}…"),
    }
}

/// Formats a URL without its query, fragment and user name.
pub(crate) fn url(url: &reqwest::Url) -> String {
    origin(url) + head(url.path(), MAX_WORD)
}

/// Formats the scheme, the host and the port of a URL.
pub(crate) fn origin(url: &reqwest::Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

fn word(word: &str) -> String {
    let is_url = word.contains("://") || word.contains('=');
    let word = match word.find(['?', '#']).filter(|_| is_url).and_then(|query| word.get(..query)) {
        Some(before) => format!("{}?…", without_user(before)),
        None => without_user(word),
    };
    if word.len() > MAX_WORD { format!("{}…", head(&word, 40)) } else { word }
}

/// Removes the user name and password of a URL.
fn without_user(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rfind('@').and_then(|at| rest.get(at..)) {
        Some(rest) => format!("{scheme}://…{rest}"),
        None => word.to_owned(),
    }
}

/// Returns the first `limit` bytes, rounded to whole characters.
fn head(text: &str, limit: usize) -> &str {
    let end = text.char_indices().map(|(start, _)| start).take_while(|start| *start <= limit).last().unwrap_or(0);
    if text.len() <= limit { text } else { text.get(..end).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::secrets::Key;

    fn redact(text: &str) -> String {
        message(text, &Secrets::default())
    }

    #[test]
    fn signatures_and_users_are_removed_from_urls() {
        assert_eq!(
            redact("cannot read https://media.example/a.png?sig=SECRET now"),
            "cannot read https://media.example/a.png?… now"
        );
        assert_eq!(redact("proxy?url=https://m/a.png?sig=SECRET"), "proxy?…");
        assert_eq!(redact("m/a.png?X-Amz-Signature=SECRET"), "m/a.png?…");
        assert_eq!(redact("https://user:SECRET@m.example/a"), "https://…@m.example/a");
        assert_eq!(redact("why? no idea"), "why? no idea");
        let url = "https://user:pw@host.example:8080/a?sig=SECRET#x".parse().unwrap();
        assert_eq!(super::url(&url), "https://host.example:8080/a");
    }

    #[test]
    fn quoted_secrets_are_replaced() {
        let key = Key::new("lmnfl_id.canary", "Bearer", "KEY").unwrap();
        let secrets = Secrets::new(Some(&key), ["another-canary".to_owned(), "blue".to_owned()]);
        assert_eq!(message("bad key lmnfl_id.canary.", &secrets), "bad key [key].");
        let key = Key::new("id:another-half", "Key", "KEY").unwrap();
        assert_eq!(message("bad another-half", &Secrets::new(Some(&key), [])), "bad [key]");
        assert_eq!(message("a blue another-canary", &secrets), "a blue [secret]");
        let far = format!("denied{}lmnfl_id.canary", " ".repeat(4 * MAX_MESSAGE - 10));
        assert!(!message(&far, &secrets).contains("lmn"));
    }

    #[test]
    fn long_text_is_truncated_between_characters() {
        assert!(redact(&"A".repeat(1_000_000)).len() < 50);
        assert!(redact(&"ä ".repeat(10_000)).len() < 600);
    }
}
