//! The text types that setters accept.

/// Implements the trait of a setter's values for all usual types of text. Generated code calls it.
#[doc(hidden)]
#[macro_export]
macro_rules! text_values {
    ($trait:ident) => {
        $crate::text_values!(@ $trait: &str, ::std::string::String, ::std::boxed::Box<str>, ::std::borrow::Cow<'_, str>);
        $crate::text_values!(& $trait: &str, ::std::string::String, ::std::boxed::Box<str>, ::std::borrow::Cow<'_, str>);
        $crate::text_values!(& $trait: ::std::sync::Arc<str>, ::std::rc::Rc<str>);
        $crate::text_values!(* $trait: ::std::sync::Arc<str>, ::std::rc::Rc<str>);
    };
    (@ $trait:ident: $($type:ty),*) => {$(
        impl $trait for $type {
            fn value(self) -> ::std::string::String {
                self.into()
            }
        }
    )*};
    (& $trait:ident: $($type:ty),*) => {$(
        impl $trait for &$type {
            fn value(self) -> ::std::string::String {
                (**self).into()
            }
        }
    )*};
    (* $trait:ident: $($type:ty),*) => {$(
        impl $trait for $type {
            fn value(self) -> ::std::string::String {
                (*self).into()
            }
        }
    )*};
}
