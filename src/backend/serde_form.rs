//! The serde form of requests, results and progress.
//!
//! In JSON and other text formats, fields that are not set are omitted and unknown fields are rejected by name. Binary
//! formats such as bincode store no field names and cannot omit fields, so there the options are one JSON text.

use std::time::Duration;

use serde::Serializer;

/// Writes a duration as a number of seconds.
pub(crate) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// Implements `Serialize` and `Deserialize` with the derived functions of `#[serde(remote = "Self")]`.
macro_rules! json_text_in_binary_formats {
    ($type:ty) => {
        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    return <$type>::serialize(self, serializer);
                }
                let mut json = Vec::new();
                let written = <$type>::serialize(self, &mut ::serde_json::Serializer::new(&mut json));
                written.map_err(::serde::ser::Error::custom)?;
                serializer.serialize_str(&String::from_utf8_lossy(&json))
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    return <$type>::deserialize(deserializer);
                }
                let json = <String as ::serde::Deserialize>::deserialize(deserializer)?;
                <$type>::deserialize(&mut ::serde_json::Deserializer::from_str(&json))
                    .map_err(::serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use json_text_in_binary_formats;
