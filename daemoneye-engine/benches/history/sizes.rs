//! What an event costs on the disk, by column.

use std::collections::BTreeMap;
use std::fs::File;

use daemoneye_engine::store::Store;
use datafusion::parquet::file::reader::FileReader as _;
use datafusion::parquet::file::serialized_reader::SerializedFileReader;

/// Columns with less than this many bytes an event share a line.
const SMALL: f64 = 0.1;

/// Bytes by what they are for.
pub(crate) type Sizes = BTreeMap<String, u64>;

pub(crate) fn of(store: &Store) -> Sizes {
    let mut sizes = Sizes::new();
    let mut add = |what: String, bytes: u64| *sizes.entry(what).or_insert(0) += bytes;
    for segment in store.snapshot().segments {
        let reader = SerializedFileReader::new(File::open(&segment.path).unwrap()).unwrap();
        let mut left = segment.bytes;
        for column in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
            let data = u64::try_from(column.compressed_size()).unwrap();
            let bloom = u64::try_from(column.bloom_filter_length().unwrap_or(0)).unwrap();
            let index = column.column_index_length().unwrap_or(0) + column.offset_index_length().unwrap_or(0);
            let index = u64::try_from(index).unwrap();
            add(column.column_path().string(), data);
            add("(Bloom filters)".to_owned(), bloom);
            add("(page index)".to_owned(), index);
            left -= data + bloom + index;
        }
        add("(footer)".to_owned(), left);
    }
    sizes
}

pub(crate) fn per_event(bytes: u64, rows: usize) -> f64 {
    bytes as f64 / rows as f64
}

pub(crate) fn print(rows: usize, before: &Sizes, after: &Sizes) {
    println!("\n| bytes an event | before | after compaction |\n|---|---|---|");
    let total = |sizes: &Sizes| per_event(sizes.values().sum(), rows);
    println!("| all | {:.2} | {:.2} |", total(before), total(after));
    let mut lines: Vec<(&String, f64, f64)> = after
        .iter()
        .map(|(what, bytes)| (what, per_event(before.get(what).copied().unwrap_or(0), rows), per_event(*bytes, rows)))
        .collect();
    lines.sort_by(|one, other| other.2.total_cmp(&one.2));
    let (large, small): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.2 >= SMALL);
    for (what, before, after) in large {
        println!("| `{what}` | {before:.2} | {after:.2} |");
    }
    let sum = |side: fn(&(&String, f64, f64)) -> f64| small.iter().map(side).sum::<f64>();
    println!("| the other {} | {:.2} | {:.2} |", small.len(), sum(|line| line.1), sum(|line| line.2));
}
