//! Text from outside, made fit for an error message.

use super::key::Key;

/// Longer messages are cut: a page of HTML or a base64 body helps nobody.
const MESSAGE: usize = 500;
/// A longer word is no word but data.
const WORD: usize = 160;

/// A short text without secrets: no key, no address's query (which may be a signature), no data.
pub(super) fn message(text: &str, key: Option<&Key>) -> String {
    // Bounded before anything else, since the rest costs time and memory in proportion.
    let text = head(text, 4 * MESSAGE);
    let text = key.map_or_else(|| text.to_owned(), |key| key.blot(text));
    let words: Vec<String> = text.split_whitespace().map(word).collect();
    let text = words.join(" ");
    match head(&text, MESSAGE) {
        whole if whole.len() == text.len() => text,
        part => format!("{part}…"),
    }
}

/// An address without its query, fragment and user name.
pub(super) fn address(address: &reqwest::Url) -> String {
    let port = address.port().map(|port| format!(":{port}")).unwrap_or_default();
    let host = address.host_str().unwrap_or_default();
    format!("{}://{host}{port}{}", address.scheme(), head(address.path(), WORD))
}

fn word(word: &str) -> String {
    let word = match (word.find("://"), word.find(['?', '#'])) {
        (Some(scheme), Some(query)) if scheme < query => {
            format!("{}?…", word.get(..query).unwrap_or_default())
        }
        _ => word.to_owned(),
    };
    if word.len() > WORD { format!("{}…", head(&word, 40)) } else { word }
}

/// The first `limit` bytes, cut between characters.
fn head(text: &str, limit: usize) -> &str {
    let end = text.char_indices().map(|(start, _)| start).take_while(|start| *start <= limit).last().unwrap_or(0);
    if text.len() <= limit { text } else { text.get(..end).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_loses_its_signature() {
        let text = message("cannot read https://media.example/a.png?sig=SECRET now", None);
        assert_eq!(text, "cannot read https://media.example/a.png?… now");
        let url = "https://user:pw@host.example:8080/a?sig=SECRET#x".parse().unwrap();
        assert_eq!(address(&url), "https://host.example:8080/a");
    }

    #[test]
    fn a_key_that_the_service_quotes_is_blotted_out() {
        let key = Key::new("lmnfl_id.canary", "Bearer", "KEY").unwrap();
        assert_eq!(message("bad key lmnfl_id.canary.", Some(&key)), "bad key [key].");
    }

    #[test]
    fn data_is_cut_between_characters() {
        assert!(message(&"A".repeat(1_000_000), None).len() < 50);
        assert!(message(&"ä ".repeat(10_000), None).len() < 600);
    }
}
