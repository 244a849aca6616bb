//! The user's cache folder, with files that spare the next process the work of this one.

use std::env;
use std::path::PathBuf;

/// The environment variable that contains the folder. An empty value means that no file is read or written.
const VARIABLE: &str = "LUMENFALL_CACHE";

/// Returns the folder for files of one kind, if the environment determines one.
pub(crate) fn folder(kind: &str) -> Option<PathBuf> {
    Some(cache_folder(|name| env::var_os(name).map(PathBuf::from))?.join(kind))
}

fn cache_folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(folder) = variable(VARIABLE) {
        return Some(folder).filter(|folder| !folder.as_os_str().is_empty());
    }
    let path = |name: &str| variable(name).filter(|folder| folder.is_absolute());
    let caches = if cfg!(windows) {
        path("LOCALAPPDATA")?
    } else if cfg!(target_os = "macos") {
        path("HOME")?.join("Library/Caches")
    } else {
        path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")))?
    };
    Some(caches.join("lumenfall"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_determines_the_folder() {
        let of = |variables: &[(&str, &str)]| {
            cache_folder(|name| Some(variables.iter().find(|(other, _)| *other == name)?.1.into()))
        };
        assert_eq!(of(&[("LUMENFALL_CACHE", "/c"), ("HOME", "/home")]), Some("/c".into()));
        assert_eq!(of(&[("LUMENFALL_CACHE", ""), ("HOME", "/home")]), None);
        assert_eq!(of(&[]), None);
        #[cfg(target_os = "linux")]
        {
            assert_eq!(of(&[("HOME", "/home")]), Some("/home/.cache/lumenfall".into()));
            assert_eq!(of(&[("HOME", "/home"), ("XDG_CACHE_HOME", "/x")]), Some("/x/lumenfall".into()));
        }
    }
}
