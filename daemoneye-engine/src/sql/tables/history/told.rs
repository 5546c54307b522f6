//! Files that have exactly the columns of this build say so to the reader.
//!
//! Who reads a file with a schema of its own choice (dictionaries instead of text, say) must name every column of it; a file of an
//! older build may lack some, and is read as it always was.

use crate::schema::table_schema;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::parquet::file::metadata::ParquetMetaData;

/// Files of one scan whose footers are looked at while it is planned: a month in days, a day in hours and an hour in minutes, as
/// segments are before they are merged. The scan reads the same footers, and has them from the cache.
pub(super) const MAX_FILES: usize = 128;

/// The file with its columns told, if they are those of the table as this build writes it.
pub(super) fn with_columns(file: PartitionedFile, table: &str, footer: &ParquetMetaData) -> PartitionedFile {
    match table_schema(table).filter(|columns| has(footer, columns)) {
        Some(columns) => file.with_arrow_schema(columns),
        None => file,
    }
}

fn has(footer: &ParquetMetaData, columns: &SchemaRef) -> bool {
    let written = footer.file_metadata().schema_descr();
    let fields = columns.fields();
    written.num_columns() == fields.len()
        && written.columns().iter().zip(fields).all(|(column, field)| column.path().string() == *field.name())
}
