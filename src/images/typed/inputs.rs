//! Images as arguments.

use crate::values::Input;

/// One or more images, as the first argument of `edit`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an image to edit",
    label = "write `Input::path(\"source.png\")` or `Input::bytes(bytes)`; for several images, a `Vec` or an array of them"
)]
pub trait Inputs {
    /// Returns the images in order.
    fn into_inputs(self) -> Vec<Input>;
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
