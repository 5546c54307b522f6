//! The readers of a lookup: of the row groups that may have a value, each reader has its share.
//!
//! Bytes of a file, by which other scans are cut, say nothing here: all row groups that are left may lie in one half.

use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileGroup;
use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;

/// Threads of a session that a lookup may use, whatever the rest of its plan does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Readers(pub(crate) usize);

/// Row groups from which on a second reader is worth waking.
const MIN_GROUPS: usize = 3;

fn groups_of(file: &PartitionedFile) -> Option<&ParquetAccessPlan> {
    file.extension()
}

/// The files, of which each has a plan of its row groups, in runs of about as many; `None` where one has none or few are left.
pub(super) fn spread(files: &[PartitionedFile], readers: usize) -> Option<Vec<FileGroup>> {
    let left = files.iter().map(|file| Some(groups_of(file)?.row_group_indexes().len())).sum::<Option<usize>>()?;
    if readers < 2 || left < MIN_GROUPS {
        return None;
    }
    let share = left.div_ceil(readers);
    let mut groups = vec![Vec::new(); readers];
    let mut taken = 0_usize;
    for file in files {
        let of_file = groups_of(file)?;
        let mut shares: Vec<Option<ParquetAccessPlan>> = vec![None; readers];
        for group in of_file.row_group_indexes() {
            let reader = taken.checked_div(share)?;
            taken = taken.saturating_add(1);
            let none = || ParquetAccessPlan::new_none(of_file.len());
            shares.get_mut(reader)?.get_or_insert_with(none).scan(group);
        }
        for (files, share) in groups.iter_mut().zip(shares) {
            files.extend(share.map(|share| file.clone().with_extension(share)));
        }
    }
    Some(groups.into_iter().filter(|files| !files.is_empty()).map(FileGroup::new).collect())
}
