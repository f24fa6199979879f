//! The version of what is written down by one process to be read by another.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A field that names it: data of another version are not read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Version<const NUMBER: u32>;

impl<const NUMBER: u32> Serialize for Version<NUMBER> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        NUMBER.serialize(to)
    }
}

impl<'a, const NUMBER: u32> Deserialize<'a> for Version<NUMBER> {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        let found = u32::deserialize(from)?;
        if found == NUMBER {
            return Ok(Self);
        }
        Err(D::Error::custom(format!("written in version {found}, of which only {NUMBER} is known here")))
    }
}
