//! Images as arguments.

use crate::images::Input;

/// One image or several, as the first argument of an edit.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an image to edit",
    label = "write `Input::path(\"source.png\")` or `Input::bytes(bytes)`; several go into a `Vec<Input>` or an array"
)]
pub trait Inputs {
    /// The images in order.
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
