//! Paths that users pass.

use std::borrow::Cow;
use std::path::Path;

/// Replaces a leading `~` by the home directory, as a shell does. `~user` is not replaced, and neither is `~` if the home
/// directory is unknown.
pub(crate) fn expand_home(path: &Path) -> Cow<'_, Path> {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest).into(),
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leading_tilde_is_replaced() {
        let home = std::env::home_dir().unwrap();
        assert_eq!(expand_home(Path::new("~/a/b.png")), home.join("a/b.png"));
        assert_eq!(expand_home(Path::new("~")), home);
        for path in ["", "a.png", "./~", "a/~/b", "~user/a", "/~"] {
            assert_eq!(expand_home(Path::new(path)), Path::new(path));
        }
    }
}
