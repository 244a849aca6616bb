//! The enums of parameters with an `enum` in the schema.

use super::{Schema, Value};
use crate::error::{Error, ErrorKind};

/// Emits the enum of a parameter, with the conversions from and to the name in requests.
#[doc(hidden)]
#[macro_export]
macro_rules! choice {
    ($schema:path, $parameter:literal; $type:ident { $($variant:ident = $name:literal),+ }) => {
        #[doc = concat!("A value of `", $parameter, "`.")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $type {
            $(#[doc = concat!("`", $name, "`.")] $variant,)+
        }

        impl $type {
            /// All values, in the order of the schema.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the name in requests.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        /// Writes the name in requests.
        impl ::core::fmt::Display for $type {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.pad(self.as_str())
            }
        }

        /// Parses the name in requests. The error is of the kind `InvalidRequest` and names the parameter.
        impl ::core::str::FromStr for $type {
            type Err = $crate::Error;

            fn from_str(name: &str) -> ::core::result::Result<Self, $crate::Error> {
                $crate::images::typed::choice(&$schema, $parameter, name, &[$((Self::$variant, $name)),+])
            }
        }

        /// Returns the name in requests.
        impl ::core::convert::From<$type> for $crate::images::typed::Value {
            fn from(value: $type) -> Self {
                value.as_str().into()
            }
        }

        /// Writes the name in requests.
        impl $crate::images::typed::serde::Serialize for $type {
            fn serialize<S: $crate::images::typed::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::core::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        /// Reads the name in requests.
        impl<'de> $crate::images::typed::serde::Deserialize<'de> for $type {
            fn deserialize<D: $crate::images::typed::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::core::result::Result<Self, D::Error> {
                let name = <::std::string::String as $crate::images::typed::serde::Deserialize>::deserialize(deserializer)?;
                name.parse().map_err(<D::Error as $crate::images::typed::serde::de::Error>::custom)
            }
        }
    };
}

/// Returns the value with this name.
#[doc(hidden)]
pub fn choice<T: Copy>(schema: &Schema, parameter: &str, name: &str, all: &[(T, &str)]) -> Result<T, Error> {
    schema.check_value(parameter, &Value::from(name))?;
    let found = all.iter().find(|(_, known)| *known == name).map(|(value, _)| *value);
    found.ok_or_else(|| {
        let message = format!("`{parameter}` does not have the value {name:?}; generate the code of the schema again");
        Error::new(ErrorKind::InvalidRequest, message).with_parameter(parameter)
    })
}
