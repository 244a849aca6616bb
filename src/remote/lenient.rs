//! JSON from a service that cannot be asked again: what can be read of it is read, whatever is wrong beside it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Some servers write it before their JSON.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// An object whose fields are only found, and each read on its own: compatible servers leave some out, add their own, write
/// some twice, and give some another type.
#[derive(Default)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// The object that `json` begins with; what follows it is of no interest.
    pub(super) fn read(json: &'a [u8]) -> serde_json::Result<Self> {
        let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
        Self::deserialize(&mut serde_json::Deserializer::from_slice(json))
    }

    /// The last field of that name.
    pub(super) fn field(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rfind(|(given, _)| given == name).map(|(_, value)| *value)
    }

    /// The field of that name, if it is of that type.
    pub(super) fn read_as<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        self.field(name).and_then(read_as)
    }

    /// The field of that name, if it is a text that is not empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.field(name).and_then(text)
    }
}

/// What `raw` holds, if it is of that type.
pub(super) fn read_as<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

/// A text that is not empty. Half a character, as it is left where a text was cut within an emoji, becomes a mark.
pub(super) fn text(raw: &RawValue) -> Option<String> {
    read_as::<Text>(raw).map(|Text(text)| text.into_owned()).filter(|text| !text.is_empty())
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Object<'de>, M::Error> {
        let mut fields = Vec::with_capacity(4);
        while let Some((Text(name), value)) = map.next_entry()? {
            fields.push((name, value));
        }
        Ok(Object(fields))
    }
}

struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As bytes: that alone takes half a character.
        deserializer.deserialize_bytes(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Text<'de>, E> {
        Ok(Text(String::from_utf8_lossy(bytes)))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text<'de>, E> {
        Ok(Text(String::from_utf8_lossy(bytes).into_owned().into()))
    }
}
