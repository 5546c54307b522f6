//! Which reader reads which row groups of a scan.
//!
//! Bytes of a file, by which the library cuts scans, say little: of a lookup all row groups that are left may lie in one half, and
//! what one half of a scan costs depends on what its rows are asked.

use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileGroup;
use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;

/// Threads of a session that a lookup may use, whatever the rest of its plan does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Readers(pub(crate) usize);

/// Row groups from which on a second reader is worth waking.
const MIN_GROUPS: usize = 3;
/// Pieces for each of the readers that share them: whoever is done takes the next, so all end about a piece apart.
const PIECES: usize = 16;
/// Row groups from which on a piece is worth opening its file once more: some 85 µs.
const PIECE_GROUPS: usize = 4;

/// The files, of which each has a plan of its row groups, in runs of about as many, one for each reader; `None` where one has none or
/// few are left.
pub(super) fn runs(files: &[PartitionedFile], readers: usize) -> Option<Vec<FileGroup>> {
    let left = left(files).filter(|left| readers > 1 && *left >= MIN_GROUPS)?;
    Some(pieces(files, left.div_ceil(readers))?.into_iter().map(FileGroup::new).collect())
}

/// The same in pieces that all readers share.
pub(super) fn shared(files: &[PartitionedFile], readers: usize) -> Option<Vec<FileGroup>> {
    let left = left(files).filter(|left| *left >= MIN_GROUPS)?;
    let mut groups = vec![Vec::new(); readers];
    let worth_it = PIECE_GROUPS.min(left.div_ceil(readers));
    let pieces = pieces(files, left.div_ceil(readers.saturating_mul(PIECES)).max(worth_it))?;
    for (nth, piece) in pieces.into_iter().enumerate() {
        groups.get_mut(nth.checked_rem(readers)?)?.extend(piece);
    }
    Some(groups.into_iter().filter(|files| !files.is_empty()).map(FileGroup::new).collect())
}

fn left(files: &[PartitionedFile]) -> Option<usize> {
    files.iter().map(|file| Some(groups_of(file)?.row_group_indexes().len())).sum()
}

fn groups_of(file: &PartitionedFile) -> Option<&ParquetAccessPlan> {
    file.extension()
}

/// So many row groups after each other.
fn pieces(files: &[PartitionedFile], share: usize) -> Option<Vec<Vec<PartitionedFile>>> {
    let mut pieces: Vec<Vec<PartitionedFile>> = Vec::new();
    let mut room = 0_usize;
    for file in files {
        let of_file = groups_of(file)?;
        let groups = of_file.row_group_indexes();
        let mut groups = groups.as_slice();
        while !groups.is_empty() {
            if room == 0 {
                pieces.push(Vec::new());
                room = share.max(1);
            }
            let (these, others) = groups.split_at(groups.len().min(room));
            pieces.last_mut()?.push(only(file, of_file.len(), these));
            (room, groups) = (room.saturating_sub(these.len()), others);
        }
    }
    Some(pieces)
}

/// The file with no other row groups than these.
fn only(file: &PartitionedFile, groups: usize, these: &[usize]) -> PartitionedFile {
    let mut plan = ParquetAccessPlan::new_none(groups);
    these.iter().for_each(|group| plan.scan(*group));
    file.clone().with_extension(plan)
}

/// The file with those of its row groups of which `holds` is true, and with the others; `None` where there are none.
pub(super) fn parted(file: &PartitionedFile, holds: impl Fn(usize) -> bool) -> Option<[Option<PartitionedFile>; 2]> {
    let of_file = groups_of(file)?;
    let parts: (Vec<usize>, Vec<usize>) = of_file.row_group_indexes().into_iter().partition(|group| holds(*group));
    let part = |these: Vec<usize>| (!these.is_empty()).then(|| only(file, of_file.len(), &these));
    Some([part(parts.0), part(parts.1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, groups: usize) -> PartitionedFile {
        PartitionedFile::new(name, 1).with_extension(ParquetAccessPlan::new_all(groups))
    }

    /// The row groups of each reader.
    fn read(groups: Option<Vec<FileGroup>>) -> Vec<Vec<(String, Vec<usize>)>> {
        let of_file = |file: &PartitionedFile| {
            (file.object_meta.location.to_string(), groups_of(file).unwrap().row_group_indexes())
        };
        groups.unwrap_or_default().iter().map(|group| group.files().iter().map(of_file).collect()).collect()
    }

    #[test]
    fn readers_have_runs_of_about_as_many_row_groups() {
        let files = [file("a", 4), file("b", 1), file("c", 2)];
        let [a, b, c] = ["a", "b", "c"].map(str::to_owned);
        let wanted = vec![vec![(a, vec![0, 1, 2, 3])], vec![(b, vec![0]), (c, vec![0, 1])]];
        assert_eq!(read(runs(&files, 2)), wanted);
        assert!(runs(&files, 1).is_none() && runs(&files[1..2], 2).is_none());
        let without = PartitionedFile::new("d", 1);
        assert!(runs(&[files[0].clone(), without.clone()], 2).is_none() && shared(&[without], 2).is_none());
    }

    #[test]
    fn shared_pieces_hold_each_row_group_once() {
        let sizes = |files: &[PartitionedFile]| {
            let mut sizes: Vec<usize> =
                read(shared(files, 2)).concat().iter().map(|(_, groups)| groups.len()).collect();
            sizes.sort_unstable();
            sizes
        };
        assert_eq!(sizes(&[file("few", 5)]), [2, 3]);
        assert_eq!(sizes(&[file("some", 23)]), [3, 4, 4, 4, 4, 4]);
        let files = [file("a", 70), file("b", 3), file("c", 27)];
        let groups = read(shared(&files, 2));
        assert_eq!(groups.len(), 2);
        let pieces = groups.concat();
        assert!(
            pieces.iter().all(|(_, groups)| groups.len() <= 100_usize.div_ceil(2 * PIECES).max(PIECE_GROUPS)),
            "{pieces:?}"
        );
        let mut all: Vec<_> =
            pieces.iter().flat_map(|(file, groups)| groups.iter().map(move |at| (file, *at))).collect();
        all.sort();
        all.dedup();
        assert_eq!((all.len(), pieces.iter().map(|(_, groups)| groups.len()).sum()), (100, 100));
    }

    #[test]
    fn a_file_is_parted_by_its_row_groups() {
        let parts = parted(&file("a", 3), |group| group > 0)
            .unwrap()
            .map(|part| part.map(|part| groups_of(&part).unwrap().row_group_indexes()));
        assert_eq!(parts, [Some(vec![1, 2]), Some(vec![0])]);
        assert!(parted(&file("a", 3), |_| true).unwrap()[1].is_none());
    }
}
