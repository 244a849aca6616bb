//! The names of the files that the images are saved to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use lumenfall::{Error, ErrorKind, OutputFormat};

/// Where to save the images of a request.
#[derive(Debug)]
pub(crate) struct Files<'a> {
    /// The file that the user named.
    output: Option<&'a Path>,
}

impl<'a> Files<'a> {
    /// Checks that images can be saved to `output`.
    pub(crate) fn check(output: Option<&'a Path>) -> Result<Self, Error> {
        if let Some(path) = output {
            let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let problem = if !folder.is_dir() {
                Some(format!("there is no folder {}; create it first", folder.display()))
            } else if path.is_dir() || path.file_name().is_none() {
                Some("it is a folder; add a file name".into())
            } else if path.exists() && !path.is_file() {
                Some("it is not a regular file; choose another name".into())
            } else {
                // A request may cost money, so that a folder which cannot be written is an error before it.
                let trial = folder.join(format!(".lumenfall-{}.part", std::process::id()));
                let written = File::create(&trial).and_then(|_| fs::remove_file(&trial));
                written.err().map(|error| format!("{error}; choose another folder"))
            };
            if let Some(problem) = problem {
                let message = format!("cannot save to {}: {problem}", path.display());
                return Err(Error::new(ErrorKind::Io, message).with_parameter("output"));
            }
        }
        Ok(Self { output })
    }

    /// The file format that the extension of the user's file stands for.
    pub(crate) fn format(&self) -> Option<OutputFormat> {
        OutputFormat::from_extension(self.output?.extension()?.to_str()?)
    }

    /// The path of the image `index`, which has the file format `format`.
    ///
    /// With `--output FILE`, several images are numbered: `FILE-1.png`, `FILE-2.png`. Without it, the name is the first
    /// free one of `lumenfall-1.png`, `lumenfall-2.png`, …, so that no image is overwritten.
    pub(crate) fn path(&self, index: usize, count: usize, format: Option<OutputFormat>) -> PathBuf {
        match self.output {
            Some(output) if count == 1 => output.to_owned(),
            Some(output) => numbered(output, index + 1),
            None => {
                let name = Path::new("lumenfall").with_extension(format.map_or("bin", OutputFormat::extension));
                let free = (1..).map(|number| numbered(&name, number)).find(|path| !path.exists());
                free.unwrap_or(name)
            }
        }
    }
}

/// Inserts a number before the extension.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{number}{extension}"))
}
