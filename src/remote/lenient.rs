//! JSON from a service that cannot be asked again: what can be read of it is read, whatever is wrong beside it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// Without the mark that some servers write before their JSON.
pub(super) fn without_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(json)
}

/// An object whose fields are only found, and each read on its own: compatible servers leave some out, add their own, write
/// some twice, and give some another type.
#[derive(Default)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// The object that `json` begins with; what follows it is of no interest.
    pub(super) fn read(json: &'a [u8]) -> serde_json::Result<Self> {
        Self::deserialize(&mut serde_json::Deserializer::from_slice(without_mark(json)))
    }

    /// The objects in the list of that name as far as they came before the JSON broke off, the last one perhaps in part.
    pub(super) fn list_in_broken(json: &'a [u8], name: &str) -> Vec<Self> {
        let mut items = Vec::new();
        let mut deserializer = serde_json::Deserializer::from_slice(without_mark(json));
        // It breaks off somewhere; what was read is kept.
        let _ = Broken { items: &mut items, part: Part::Answer(name) }.deserialize(&mut deserializer);
        items
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

/// Puts something else for what JSON does not allow but servers write, since one broken text is no reason to lose what stands
/// beside it: a question mark for each byte that belongs to no character, a space for each control character, and an empty
/// text for a number that is none. Everything stays in its place.
pub(super) fn mend(json: &mut [u8]) {
    mend_characters(json);
    json.iter_mut().filter(|byte| **byte < b' ').for_each(|byte| *byte = b' ');
    mend_numbers(json);
}

fn mend_characters(mut json: &mut [u8]) {
    while let Err(error) = std::str::from_utf8(json) {
        let start = error.valid_up_to();
        let end = error.error_len().map_or(json.len(), |length| start + length);
        let (broken, rest) = json.split_at_mut(end);
        broken.iter_mut().skip(start).for_each(|byte| *byte = b'?');
        json = rest;
    }
}

/// Python writes these where a number is not finite.
const NO_NUMBERS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

fn mend_numbers(mut json: &mut [u8]) {
    let mut in_text = false;
    while let Some(byte) = json.first() {
        let mut length = 1;
        match byte {
            b'"' => in_text = !in_text,
            b'\\' if in_text => length = 2,
            _ if in_text => {}
            _ => {
                if let Some(none) = NO_NUMBERS.iter().find(|none| json.starts_with(none)) {
                    length = none.len();
                    json.iter_mut().zip(*b"\"\"").for_each(|(byte, quote)| *byte = quote);
                    json.iter_mut().take(length).skip(2).for_each(|byte| *byte = b' ');
                }
            }
        }
        json = json.get_mut(length..).unwrap_or_default();
    }
}

/// A field of another type than documented is as good as none; for `#[serde(deserialize_with = "…")]`.
pub(super) fn odd_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + DeserializeOwned,
{
    Value::deserialize(deserializer).map(|value| serde_json::from_value(value).unwrap_or_default())
}

/// The same of a number, which may be written as text.
pub(super) fn odd_is_no_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Value::deserialize(deserializer).map(|value| number(&value))
}

/// The items of a list that can be read.
pub(super) fn readable<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let items = Vec::<Value>::deserialize(deserializer)?;
    Ok(items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect())
}

/// Some servers write amounts as text.
pub(super) fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).filter(|number: &f64| number.is_finite())
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

/// Reads as much as there is into `items`.
struct Broken<'i, 'a> {
    items: &'i mut Vec<Object<'a>>,
    part: Part<'i>,
}

/// Where in the answer.
enum Part<'n> {
    /// In the whole, whose list has this name.
    Answer(&'n str),
    List,
    Item,
}

impl<'de> DeserializeSeed<'de> for Broken<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.part {
            Part::List => deserializer.deserialize_seq(self),
            Part::Answer(_) | Part::Item => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for Broken<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let Part::Answer(list) = self.part else {
            self.items.push(Object::default());
            while let Some((Text(name), value)) = map.next_entry()? {
                if let Some(Object(fields)) = self.items.last_mut() {
                    fields.push((name, value));
                }
            }
            return Ok(());
        };
        while let Some(Text(name)) = map.next_key()? {
            match name == list {
                true => map.next_value_seed(Broken { items: self.items, part: Part::List })?,
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        while list.next_element_seed(Broken { items: self.items, part: Part::Item })?.is_some() {}
        Ok(())
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
