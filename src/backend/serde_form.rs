//! The serde form of requests, results and progress.
//!
//! In JSON and other text formats, fields that are not set are omitted and unknown fields are rejected by name. Binary
//! formats such as bincode store no field names and cannot omit fields, so there the options are one JSON text.

/// A duration as a number of seconds.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A time as a number of seconds since 1970.
pub(crate) mod unix_seconds {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
        let since = |time: &SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        time.as_ref().map(since).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
        let seconds = Option::<u64>::deserialize(deserializer)?;
        Ok(seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds))))
    }
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
