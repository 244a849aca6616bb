//! Images as arguments.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::values::Input;

/// One or more images, as the argument of `edit`: one image of a type that implements [`IntoInput`], or a `Vec` or an array
/// of [`Input`].
///
/// ```
/// use std::path::Path;
///
/// use lumenfall::{Client, Input};
///
/// fn edit(client: &Client, path: &Path, bytes: Vec<u8>) {
///     let _ = client.images().edit(path);
///     let _ = client.images().edit(bytes);
///     let _ = client.images().edit(b"\x89PNG\r\n\x1a\n..."); // or `include_bytes!("source.png")`
///     let _ = client.images().edit([Input::path("a.png"), Input::path("b.png")]);
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an image to edit",
    label = "write `Input::path(\"source.png\")` or `Input::bytes(bytes)`; for several images, a `Vec<Input>` or an array of them"
)]
pub trait Inputs {
    /// Returns the images in order.
    fn into_inputs(self) -> Vec<Input>;
}

/// An image as an argument: an [`Input`], the path of a file (`&Path`, `PathBuf`), or the bytes of an encoded image (`&[u8]`,
/// `Vec<u8>`, `Bytes`, `include_bytes!(..)`).
///
/// Text is not an image, because it could be a path, a URL or Base64; write `Input::path("source.png")`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an image",
    label = "write `Input::path(\"source.png\")` or `Input::bytes(bytes)`"
)]
pub trait IntoInput {
    /// Returns the image.
    fn into_input(self) -> Input;
}

impl Inputs for Vec<Input> {
    fn into_inputs(self) -> Vec<Input> {
        self
    }
}

impl Inputs for &[Input] {
    fn into_inputs(self) -> Vec<Input> {
        self.into()
    }
}

impl<const N: usize> Inputs for [Input; N] {
    fn into_inputs(self) -> Vec<Input> {
        self.into()
    }
}

impl Inputs for Input {
    fn into_inputs(self) -> Vec<Input> {
        vec![self]
    }
}

impl IntoInput for Input {
    fn into_input(self) -> Input {
        self
    }
}

macro_rules! images {
    ($([$($generics:tt)*] $type:ty, $value:ident => $input:expr;)*) => {
        $(
            impl<$($generics)*> From<$type> for Input {
                fn from($value: $type) -> Self {
                    $input
                }
            }

            impl<$($generics)*> IntoInput for $type {
                fn into_input(self) -> Input {
                    self.into()
                }
            }

            impl<$($generics)*> Inputs for $type {
                fn into_inputs(self) -> Vec<Input> {
                    vec![self.into()]
                }
            }
        )*
    };
}

images! {
    [] &Input, input => input.clone();
    [] &Path, path => Self::path(path);
    [] PathBuf, path => Self::path(path);
    [] &PathBuf, path => Self::path(path);
    [] Bytes, bytes => Self::bytes(bytes);
    [] &Bytes, bytes => Self::bytes(bytes.clone());
    [] Vec<u8>, bytes => Self::bytes(bytes);
    [] &Vec<u8>, bytes => Self::bytes(bytes.clone());
    [] &[u8], bytes => Self::bytes(bytes.to_vec());
    [const N: usize] &[u8; N], bytes => Self::bytes(bytes.to_vec());
}
