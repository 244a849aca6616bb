//! Setters of plain-data structs that users cannot construct with a literal.

/// Defines methods that set an optional field and return the struct.
macro_rules! setters {
    ($($setter:ident: $field:ident = $value:ty),+ $(,)?) => {
        $(
            #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
            #[must_use]
            pub fn $setter(mut self, value: $value) -> Self {
                self.$field = Some(value.into());
                self
            }
        )+
    };
}
pub(crate) use setters;
