//! Text from outside, made fit for an error message.

use super::key::Secrets;

/// Longer messages are cut: a page of HTML or a base64 body helps nobody.
const MESSAGE: usize = 500;
/// A longer word is no word but data.
const WORD: usize = 160;

/// A short text without secrets: no key, no address's query (which may be a signature), no data.
pub(super) fn message(text: &str, secrets: &Secrets) -> String {
    // Blotted before it is cut: a cut through a secret would leave its beginning.
    let text = secrets.blot(text);
    let words: Vec<String> = head(&text, 4 * MESSAGE).split_whitespace().map(word).collect();
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
    let is_address = word.contains("://") || word.contains('=');
    let word = match word.find(['?', '#']).filter(|_| is_address).and_then(|query| word.get(..query)) {
        Some(before) => format!("{}?…", without_user(before)),
        None => without_user(word),
    };
    if word.len() > WORD { format!("{}…", head(&word, 40)) } else { word }
}

/// An address without the name and password before its host.
fn without_user(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rfind('@').and_then(|at| rest.get(at..)) {
        Some(rest) => format!("{scheme}://…{rest}"),
        None => word.to_owned(),
    }
}

/// The first `limit` bytes, cut between characters.
fn head(text: &str, limit: usize) -> &str {
    let end = text.char_indices().map(|(start, _)| start).take_while(|start| *start <= limit).last().unwrap_or(0);
    if text.len() <= limit { text } else { text.get(..end).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::key::Key;

    fn clean(text: &str) -> String {
        message(text, &Secrets::default())
    }

    #[test]
    fn an_address_loses_its_signature_and_its_user() {
        assert_eq!(
            clean("cannot read https://media.example/a.png?sig=SECRET now"),
            "cannot read https://media.example/a.png?… now"
        );
        assert_eq!(clean("proxy?url=https://m/a.png?sig=SECRET"), "proxy?…");
        assert_eq!(clean("m/a.png?X-Amz-Signature=SECRET"), "m/a.png?…");
        assert_eq!(clean("https://user:SECRET@m.example/a"), "https://…@m.example/a");
        assert_eq!(clean("why? no idea"), "why? no idea");
        let url = "https://user:pw@host.example:8080/a?sig=SECRET#x".parse().unwrap();
        assert_eq!(address(&url), "https://host.example:8080/a");
    }

    #[test]
    fn what_the_service_quotes_of_secrets_is_blotted_out() {
        let key = Key::new("lmnfl_id.canary", "Bearer", "KEY").unwrap();
        let secrets = Secrets::new(Some(&key), ["another-canary".to_owned(), "blue".to_owned()]);
        assert_eq!(message("bad key lmnfl_id.canary.", &secrets), "bad key [key].");
        let key = Key::new("id:another-half", "Key", "KEY").unwrap();
        assert_eq!(message("bad another-half", &Secrets::new(Some(&key), [])), "bad [key]");
        assert_eq!(message("a blue another-canary", &secrets), "a blue [secret]");
        let far = format!("denied{}lmnfl_id.canary", " ".repeat(4 * MESSAGE - 10));
        assert!(!message(&far, &secrets).contains("lmn"));
    }

    #[test]
    fn data_is_cut_between_characters() {
        assert!(clean(&"A".repeat(1_000_000)).len() < 50);
        assert!(clean(&"ä ".repeat(10_000)).len() < 600);
    }
}
