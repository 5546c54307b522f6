//! How a value lies in `state.redb`: one version byte, then postcard.
//!
//! redb asks a value type to read itself without failing, and a flipped byte must not panic. So a table's value type here
//! is only the bytes, and reading them is [`Encoded::decode`], which can fail.

use std::fmt;
use std::marker::PhantomData;

use redb::{TypeName, Value};
use serde::{Serialize, de::DeserializeOwned};

use super::StoreError;

/// Version byte of every value, the same in all tables. It tells a value from other bytes; it does not tell shapes of a record
/// apart. Those are told by the store's format version: a changed shape raises that one, and a step in [`super::migrate`]
/// rewrites the table, as format 4 did with the segments, whose values begin with this byte before and after.
const VERSION: u8 = 1;

/// A record that some table holds.
pub(super) trait Record: Serialize + DeserializeOwned + 'static {
    /// Name of the table, for errors.
    const NAME: &'static str;

    fn encode(&self) -> Result<Encoded<'static, Self>, StoreError> {
        let bytes = postcard::to_extend(self, vec![VERSION]).map_err(|error| corrupt::<Self>(&error))?;
        Ok(Encoded { bytes: bytes.into(), record: PhantomData })
    }
}

/// The value type of a table of `T`.
pub(super) struct Stored<T>(PhantomData<T>);

/// One value as it lies in the file.
pub(super) struct Encoded<'a, T> {
    bytes: std::borrow::Cow<'a, [u8]>,
    record: PhantomData<T>,
}

impl<T: Record> Encoded<'_, T> {
    /// Bytes as it lies in the file.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn decode(&self) -> Result<T, StoreError> {
        match self.bytes.split_first() {
            Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
                Ok((record, [])) => Ok(record),
                // A field that this build does not know would be lost without a word.
                Ok((_, rest)) => Err(corrupt::<T>(&format_args!("{} bytes stand behind it", rest.len()))),
                Err(error) => Err(corrupt::<T>(&error)),
            },
            Some((version, _)) => Err(corrupt::<T>(&format_args!("its version byte is {version}, not {VERSION}"))),
            None => Err(corrupt::<T>(&"it is empty")),
        }
    }
}

fn corrupt<T: Record>(what: &dyn fmt::Display) -> StoreError {
    StoreError::CorruptState { table: T::NAME.to_owned(), what: what.to_string() }
}

impl<T> fmt::Debug for Stored<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stored")
    }
}

impl<T> fmt::Debug for Encoded<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({} bytes)", self.bytes.len())
    }
}

impl<T: Record> Value for Stored<T> {
    type SelfType<'a>
        = Encoded<'a, T>
    where
        Self: 'a;
    type AsBytes<'a>
        = &'a [u8]
    where
        Self: 'a;

    fn fixed_width() -> Option<usize> {
        None
    }

    fn from_bytes<'a>(data: &'a [u8]) -> Encoded<'a, T>
    where
        Self: 'a,
    {
        Encoded { bytes: data.into(), record: PhantomData }
    }

    fn as_bytes<'a, 'b: 'a>(value: &'a Encoded<'b, T>) -> &'a [u8]
    where
        Self: 'a + 'b,
    {
        &value.bytes
    }

    fn type_name() -> TypeName {
        TypeName::new(&format!("daemoneye::{}", T::NAME))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Sample {
        name: String,
        count: u64,
    }

    impl Record for Sample {
        const NAME: &'static str = "sample";
    }

    #[test]
    fn no_damage_to_a_value_panics_and_a_cut_is_an_error() {
        let whole = Sample { name: "a".into(), count: 300 }.encode().unwrap();
        assert_eq!(whole.decode().unwrap(), Sample { name: "a".into(), count: 300 });
        let bytes = whole.bytes.to_vec();
        for end in 0..bytes.len() {
            let cut = Stored::<Sample>::from_bytes(&bytes[..end]).decode();
            assert!(matches!(cut, Err(StoreError::CorruptState { .. })), "cut at {end}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _read = Stored::<Sample>::from_bytes(&flipped).decode();
        }
    }
}
