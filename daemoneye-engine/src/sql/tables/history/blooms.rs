//! Row groups that cannot hold a value that is asked for, by their Bloom filters.
//!
//! A filter of a row group has some 100 KiB, of which a value concerns one block of 32 bytes: that block alone is read here,
//! where the reader of Parquet would read and convert all of every filter before it looks. What cannot be read or is not as
//! this writer lays it out excludes nothing: the reader then decides.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::parquet::bloom_filter::Sbbf;
use datafusion::parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

/// Bytes of a block: the unit in which the filter is looked up (Parquet's format, "Split Block Bloom Filter").
const BLOCK: usize = 32;
/// Bytes that hold the whole header of a filter: 17 of one with 128 KiB.
const HEADER: usize = 32;
/// The first byte of a header: field 1, the length of the filter, as a 32-bit number in Thrift's compact encoding.
const LENGTH_FIELD: u8 = 0x15;
/// Largest filter that is looked into; ours stay below 256 KiB.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Values of an IN list that are looked up; a longer one is better read.
const MAX_VALUES: usize = 64;

/// A column and the texts of which it must equal one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sought {
    column: String,
    values: Vec<String>,
}

/// What all of `filters` together ask to be equal to a text.
pub(super) fn sought(filters: &[Expr]) -> Vec<Sought> {
    filters.iter().flat_map(split_conjunction).filter_map(equal).collect()
}

fn equal(term: &Expr) -> Option<Sought> {
    let (column, values) = match term {
        // As short lists are written while they are planned.
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (one, other) = (equal(left)?, equal(right)?);
            let few = one.column == other.column && one.values.len().saturating_add(other.values.len()) <= MAX_VALUES;
            return few.then(|| Sought { column: one.column, values: [one.values, other.values].concat() });
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Column(column), value) | (value, Expr::Column(column)) => (column, vec![text(value)?]),
            _ => return None,
        },
        Expr::InList(InList { expr, list, negated: false }) if list.len() <= MAX_VALUES => {
            let Expr::Column(column) = expr.as_ref() else { return None };
            (column, list.iter().map(text).collect::<Option<_>>()?)
        }
        _ => return None,
    };
    Some(Sought { column: column.name.clone(), values })
}

fn text(value: &Expr) -> Option<String> {
    match value {
        Expr::Literal(ScalarValue::Utf8(Some(value)) | ScalarValue::Utf8View(Some(value)), _) => Some(value.clone()),
        _ => None,
    }
}

/// For each row group of the file, whether it cannot have what is sought.
pub(super) fn excluded(path: &Path, metadata: &ParquetMetaData, sought: &[Sought]) -> Vec<bool> {
    let mut excluded = vec![false; metadata.num_row_groups()];
    let Ok(mut file) = crate::store::file::open(path) else { return excluded };
    for sought in sought {
        let places = |value| Places { value, of: HashMap::new() };
        let mut values: Vec<Places<'_>> = sought.values.iter().map(|value| places(value.as_str())).collect();
        for (group, excluded) in metadata.row_groups().iter().zip(&mut excluded) {
            let column = group.columns().iter().find(|column| column.column_path().string() == sought.column);
            if let (Some(column), false) = (column, *excluded) {
                *excluded = values.iter_mut().all(|places| lacks(&mut file, column, places).unwrap_or(false));
            }
        }
    }
    excluded
}

/// All of the filter of a column, as it is looked into; `None` when it says nothing.
pub(crate) fn whole(mut file: &File, column: &ColumnChunkMetaData) -> Option<Sbbf> {
    let (at, bytes) = bits(&mut file, column)?;
    let mut whole = vec![0; bytes];
    read(&mut file, at, &mut whole).ok()?;
    Some(Sbbf::new(&whole))
}

/// Where the bits of a filter begin, and how many bytes they take.
fn bits(file: &mut (impl Read + Seek), column: &ColumnChunkMetaData) -> Option<(u64, usize)> {
    let start = u64::try_from(column.bloom_filter_offset()?).ok()?;
    let all = usize::try_from(column.bloom_filter_length()?).ok()?;
    let mut header = [0; HEADER];
    read(file, start, &mut header).ok()?;
    let bytes = length(&header)?;
    let before = all.checked_sub(bytes).filter(|header| *header <= HEADER)?;
    Some((start.checked_add(u64::try_from(before).ok()?)?, bytes))
}

/// Whether the filter of this column says that the value is not there; `None` when it says nothing.
fn lacks(file: &mut File, column: &ColumnChunkMetaData, places: &mut Places<'_>) -> Option<bool> {
    let (start, bytes) = bits(file, column)?;
    let place = places.among(bytes)?;
    let mut block = [0; BLOCK];
    read(file, start.checked_add(u64::try_from(place.at).ok()?)?, &mut block).ok()?;
    Some(block.iter().zip(place.bits).any(|(held, wanted)| held & wanted != wanted))
}

fn read(file: &mut (impl Read + Seek), at: u64, into: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(into)
}

/// Bytes of the filter behind this header.
fn length(header: &[u8; HEADER]) -> Option<usize> {
    let (first, rest) = header.split_first()?;
    if *first != LENGTH_FIELD {
        return None;
    }
    let mut number = 0_usize;
    for (byte, shift) in rest.iter().zip([0, 7, 14, 21, 28]) {
        number |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            // Zigzag: a length is positive, so it is twice the number.
            let bytes = number / 2;
            return (bytes.is_power_of_two() && (BLOCK..=MAX_BYTES).contains(&bytes)).then_some(bytes);
        }
    }
    None
}

/// Where a value stands in a filter, and the bits that are set for it.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: usize,
    bits: [u8; BLOCK],
}

/// The place of one value in filters of each size that was met.
struct Places<'a> {
    value: &'a str,
    of: HashMap<usize, Option<Place>>,
}

impl Places<'_> {
    fn among(&mut self, bytes: usize) -> Option<Place> {
        *self.of.entry(bytes).or_insert_with(|| place(self.value, bytes))
    }
}

/// As the writer would set it: in a filter that holds nothing else.
fn place(value: &str, bytes: usize) -> Option<Place> {
    let mut filter = Sbbf::new_with_num_of_bytes(bytes);
    filter.insert(value);
    let mut bits = Vec::with_capacity(bytes);
    filter.write_bitset(&mut bits).ok()?;
    let number = bits.iter().position(|byte| *byte != 0)?.checked_div(BLOCK)?;
    let at = number.checked_mul(BLOCK)?;
    Some(Place { at, bits: bits.get(at..)?.first_chunk().copied()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter_of(bytes: usize, values: &[&str]) -> Vec<u8> {
        let mut filter = Sbbf::new_with_num_of_bytes(bytes);
        values.iter().for_each(|value| filter.insert(*value));
        let mut written = Vec::new();
        filter.write(&mut written).unwrap();
        written
    }

    #[test]
    fn the_header_of_a_filter_tells_its_length() {
        for bytes in [32, 1_024, 131_072, 262_144, MAX_BYTES] {
            let written = filter_of(bytes, &["one"]);
            let header = written.first_chunk().unwrap();
            assert_eq!(length(header), Some(bytes));
            assert!(written.len() - bytes <= HEADER, "{bytes}: {}", written.len() - bytes);
        }
        assert_eq!(length(&[0; HEADER]), None);
        assert_eq!(length(&[0xff; HEADER]), None);
        assert_eq!(length(&[LENGTH_FIELD; HEADER]), None);
    }

    #[test]
    fn a_block_says_what_the_whole_filter_says() {
        let held: Vec<String> = (0..200).map(|number| format!("held {number}")).collect();
        let held: Vec<&str> = held.iter().map(String::as_str).collect();
        let written = filter_of(1024, &held);
        let bits = written.get(written.len() - 1024..).unwrap();
        let whole = Sbbf::new(bits);
        let says = |value: &str| {
            let place = place(value, 1024).unwrap();
            let block = bits.get(place.at..place.at + BLOCK).unwrap();
            block.iter().zip(place.bits).all(|(held, wanted)| held & wanted == wanted)
        };
        assert!(held.iter().all(|value| says(value)));
        for number in 0..2_000 {
            let value = format!("other {number}");
            assert_eq!(says(&value), whole.check(value.as_str()), "{value}");
        }
    }
}
