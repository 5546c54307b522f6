//! The files against the hashes with which they are registered.
//!
//! Every row of a file may be proven and the file be another one all the same: what lies beside the rows decides what a query shows.

use std::cell::RefCell;
use std::sync::Arc;

use super::super::fsck::OnProgress;
use super::super::segment::SegmentFile;
use super::found::Proven;
use super::leaves::name_of;

/// False: it was stopped.
pub(super) fn compare<'a>(
    files: impl Iterator<Item = &'a Arc<SegmentFile>>,
    found: &mut Proven,
    progress: &mut OnProgress<'_>,
) -> bool {
    let progress = RefCell::new(progress);
    for file in files {
        // Rows were counted before; who waits is asked only whether to go on.
        let going = || progress.borrow_mut()(file.rows, file.rows);
        if !going() {
            return false;
        }
        // One that cannot be read now was told of when its rows were.
        if let Some(Err(what)) = file.compare_while(&going) {
            found.report(
                format!("segments/{}", name_of(file)),
                format!("it is not the file that was registered: {what}"),
            );
        }
    }
    true
}
