//! Compiler messages for functions whose feature is not enabled.

use crate::{Client, Error, ErrorKind};

/// No type implements this trait, so a call that needs it does not compile.
#[diagnostic::on_unimplemented(
    message = "`Client::local` and `Client::demo` need the feature `local` of the crate `lumenfall`",
    label = "the feature `local` is not enabled",
    note = "run `cargo add lumenfall --features local`"
)]
pub trait FeatureLocal {}

#[doc(hidden)]
impl Client {
    pub fn local<P: FeatureLocal>(_folder: P) -> Result<Self, Error> {
        Err(Error::new(ErrorKind::Unsupported, "the feature `local` is not enabled"))
    }

    // `for<'a>` delays the check of the bound until the function is called.
    pub fn demo() -> Result<Self, Error>
    where
        for<'a> (): FeatureLocal,
    {
        Err(Error::new(ErrorKind::Unsupported, "the feature `local` is not enabled"))
    }
}
