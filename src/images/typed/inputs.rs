//! Images as arguments.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::values::Input;

/// One or more images, as the first argument of `edit`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an image to edit",
    label = "write `Input::path(\"source.png\")` or `Input::bytes(bytes)`; for several images, a `Vec<Input>` or an array of them"
)]
pub trait Inputs {
    /// Returns the images in order.
    fn into_inputs(self) -> Vec<Input>;
}

/// Implements the conversions of one image. `$convert` creates an [`Input`] from `$type`.
macro_rules! one_image {
    ($([$($generic:tt)*] $type:ty, $convert:expr;)*) => {$(
        impl<$($generic)*> From<$type> for Input {
            fn from(image: $type) -> Self {
                $convert(image)
            }
        }

        impl<$($generic)*> Inputs for $type {
            fn into_inputs(self) -> Vec<Input> {
                vec![self.into()]
            }
        }
    )*};
}

one_image! {
    [] Bytes, Input::bytes;
    [] Vec<u8>, Input::bytes;
    [] &[u8], |bytes| Input::bytes(Bytes::copy_from_slice(bytes));
    [const N: usize] &[u8; N], |bytes: &[u8; N]| Input::bytes(Bytes::copy_from_slice(bytes));
    [] &Path, Input::path;
    [] PathBuf, Input::path;
    [] &PathBuf, Input::path;
}

impl Inputs for Input {
    fn into_inputs(self) -> Vec<Input> {
        vec![self]
    }
}

impl Inputs for Vec<Input> {
    fn into_inputs(self) -> Vec<Input> {
        self
    }
}

impl<const N: usize> Inputs for [Input; N] {
    fn into_inputs(self) -> Vec<Input> {
        self.into()
    }
}
