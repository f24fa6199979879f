//! Octets of messages in plain data: text in which each octet is the character of its number, so that what is ASCII can be read,
//! and all of it comes back as it was.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// For a field: `#[serde(with = "crate::octets")]`.
pub(crate) fn serialize<S: Serializer>(octets: &impl AsRef<[u8]>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&shown(octets.as_ref()))
}

/// See [`serialize`].
pub(crate) fn deserialize<'a, D: Deserializer<'a>, T: From<Vec<u8>>>(from: D) -> Result<T, D::Error> {
    read(&String::deserialize(from)?).map(T::from).ok_or_else(|| D::Error::custom(BEYOND))
}

const BEYOND: &str = "a character that stands for no octet";

fn shown(octets: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(octets) {
        Ok(text) if text.is_ascii() => Cow::Borrowed(text),
        _ => Cow::Owned(octets.iter().copied().map(char::from).collect()),
    }
}

fn read(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
}

/// One among others: in a list, or where there may be none.
struct One<T>(T);

impl<T: AsRef<[u8]>> Serialize for One<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, to)
    }
}

impl<'a, T: From<Vec<u8>>> Deserialize<'a> for One<T> {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        deserialize(from).map(Self)
    }
}

/// The same for a list.
pub(crate) mod list {
    use super::{Deserialize, Deserializer, One, Serializer};

    pub(crate) fn serialize<S: Serializer, T: AsRef<[u8]>>(all: &[T], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(all.iter().map(|octets| One(octets.as_ref())))
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>, T: From<Vec<u8>>>(
        from: D,
    ) -> Result<Vec<T>, D::Error> {
        Ok(Vec::<One<T>>::deserialize(from)?.into_iter().map(|one| one.0).collect())
    }
}

/// The same for what there may be none of.
pub(crate) mod option {
    use super::{Deserialize, Deserializer, One, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer, T: AsRef<[u8]>>(
        one: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        one.as_ref().map(|octets| One(octets.as_ref())).serialize(to)
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>, T: From<Vec<u8>>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        Ok(Option::<One<T>>::deserialize(from)?.map(|one| one.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_octets_come_back_and_ascii_can_be_read() {
        let all: Vec<u8> = (0..=255).collect();
        for octets in [&*all, b"", b"INVITE sip:a@b SIP/2.0\r\n", "sip:j\u{f6}rg".as_bytes(), b"\xff\xfe"] {
            assert_eq!(read(&shown(octets)).as_deref(), Some(octets));
        }
        assert_eq!(shown(b"BYE"), "BYE");
        assert_eq!(read("\u{100}"), None);
    }
}
