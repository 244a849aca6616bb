//! The environment variables that the Python package `huggingface_hub` reads.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::values::expand_home;

/// The defaults for the access to the Hub.
#[derive(Debug)]
pub(super) struct Environment {
    pub(super) token: Option<String>,
    pub(super) endpoint: String,
    pub(super) cache_folder: PathBuf,
    pub(super) offline: bool,
}

impl Environment {
    /// Reads the variables, and the file with the token. An empty variable counts as unset.
    pub(super) fn read(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(|path| expand_home(Path::new(&path)).into_owned());
        let text = |name: &str| variable(name).and_then(|value| non_blank(&value.to_string_lossy()));
        let flag = |name: &str| {
            text(name).is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
        };
        let home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .unwrap_or_else(|| expand_home(Path::new("~/.cache/huggingface")).into_owned());
        let stored_token = || {
            let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
            non_blank(&std::fs::read_to_string(file).ok()?)
        };
        let token = match flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            true => None,
            false => text("HF_TOKEN").or_else(stored_token),
        };
        Self {
            token,
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            cache_folder: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            offline: flag("HF_HUB_OFFLINE"),
        }
    }
}

fn non_blank(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Environment {
        Environment::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_variables_have_the_meaning_that_they_have_in_python() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_str().unwrap();
        let environment = read(&[("HF_HOME", path)]);
        assert_eq!(environment.cache_folder, home.path().join("hub"));
        assert_eq!((environment.token, &*environment.endpoint), (None, "https://huggingface.co"));
        assert!(!environment.offline);

        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(read(&[("HF_HOME", path)]).token.unwrap(), "hf_file");
        assert_eq!(read(&[("HF_HOME", path), ("HF_TOKEN", " hf_variable ")]).token.unwrap(), "hf_variable");
        assert_eq!(read(&[("HF_HOME", path), ("HF_TOKEN", "")]).token.unwrap(), "hf_file");
        assert_eq!(read(&[("HF_TOKEN", "hf"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token, None);

        let environment =
            read(&[("XDG_CACHE_HOME", path), ("HF_HUB_OFFLINE", "yes"), ("HF_ENDPOINT", "http://mirror")]);
        assert_eq!(environment.cache_folder, home.path().join("huggingface/hub"));
        assert_eq!((environment.offline, &*environment.endpoint), (true, "http://mirror"));
        assert_eq!(read(&[("HF_HOME", path), ("HF_HUB_CACHE", "/cache")]).cache_folder, Path::new("/cache"));
        assert!(!read(&[("HF_HUB_OFFLINE", "0")]).offline);
    }
}
