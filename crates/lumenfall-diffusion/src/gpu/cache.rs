//! Files of compiled kernels and results of the self-test.

use std::path::PathBuf;
use std::{fs, process};

use sha2::{Digest, Sha256};

use crate::user_cache;

/// The folder of the files, if there is one. Errors are ignored, because every file can be computed again.
#[derive(Clone, Debug, Default)]
pub(super) struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// Returns the folder that the environment determines.
    pub(super) fn of_user() -> Self {
        Self { folder: user_cache::folder("gpu") }
    }

    #[cfg(test)]
    pub(super) fn at(folder: &std::path::Path) -> Self {
        Self { folder: Some(folder.to_owned()) }
    }

    /// Reads a file. A file that was not written completely is ignored.
    pub(super) fn read(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.folder.as_ref()?.join(name)).ok()?;
        let contents = bytes.split_off(32.min(bytes.len()));
        (bytes == Sha256::digest(&contents).as_slice()).then_some(contents)
    }

    /// Writes a file: its checksum, and the contents.
    pub(super) fn write(&self, name: &str, contents: &[u8]) {
        let Some(folder) = &self.folder else { return };
        let bytes = [Sha256::digest(contents).as_slice(), contents].concat();
        // Other processes see either the old file or the new one.
        let temporary = folder.join(format!("{name}.{}", process::id()));
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&temporary, bytes));
        if written.and_then(|()| fs::rename(&temporary, folder.join(name))).is_err() {
            drop(fs::remove_file(&temporary));
        }
    }
}

/// Returns a name that consists of the digits of a hash.
pub(super) fn name(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(format!("{}:{part}", part.len())));
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_unless_it_is_corrupt() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(&folder.path().join("new"));
        assert_eq!(cache.read("a"), None);
        cache.write("a", b"contents");
        assert_eq!(cache.read("a").as_deref(), Some(&b"contents"[..]));
        let path = folder.path().join("new/a");
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 1);
        let bytes = fs::read(&path).unwrap();
        for corrupt in [&bytes[..20], &bytes[..bytes.len() - 1], &[&bytes[..], b"!"].concat()] {
            fs::write(&path, corrupt).unwrap();
            assert_eq!(cache.read("a"), None);
        }
    }
}
