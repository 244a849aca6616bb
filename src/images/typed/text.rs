//! Text as arguments.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

/// A string of any type, such as `&str`, `String`, `Cow<str>` or `Arc<str>`.
///
/// The prompt of a request, and every other parameter that is text, can be set to any of them:
///
/// ```
/// use std::borrow::Cow;
/// use std::sync::Arc;
///
/// use lumenfall::Client;
///
/// fn draw(client: &Client, words: Cow<'_, str>, shared: Arc<str>) {
///     let _ = client.images().generate(&words);
///     let _ = client.images().generate(words);
///     let _ = client.images().generate(shared);
/// }
/// ```
#[diagnostic::on_unimplemented(message = "`{Self}` is not text", label = "write a `&str` or a `String`")]
pub trait Text {
    /// Returns the text as a `String`.
    fn into_text(self) -> String;
}

macro_rules! text {
    ($($type:ty),* $(,)?) => {
        $(
            impl Text for $type {
                fn into_text(self) -> String {
                    self.into()
                }
            }
        )*
    };
}

text!(String, &String, &str, Cow<'_, str>, Box<str>);

macro_rules! referenced_text {
    ($($type:ty),* $(,)?) => {
        $(
            impl Text for $type {
                fn into_text(self) -> String {
                    (**self).into()
                }
            }
        )*
    };
}

referenced_text!(&&str, &Cow<'_, str>, &Box<str>, &Arc<str>, &Rc<str>);

impl Text for Arc<str> {
    fn into_text(self) -> String {
        (*self).into()
    }
}

impl Text for Rc<str> {
    fn into_text(self) -> String {
        (*self).into()
    }
}
