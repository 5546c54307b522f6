//! What merging and queries that do not fit in their pool take: the highest resident size while each is at work, above that
//! of before.

use std::sync::Arc;

use daemoneye_engine::store::Store;

use crate::queries::Asker;

/// Each gathers more than the pool of the default configuration has, and hands on one row.
const GATHERING: &[(&str, &str)] = &[
    (
        "groups by text",
        "SELECT max(c), count(*) FROM (SELECT command_line || seq AS k, max(pid) AS c FROM process_events GROUP BY 1) AS g",
    ),
    (
        "groups by one column",
        "SELECT max(n) FROM (SELECT entity_id, count(*) AS n FROM process_events GROUP BY 1) AS g",
    ),
    (
        "groups by two columns",
        "SELECT max(n) FROM (SELECT command_line, seq, count(*) AS n FROM process_events GROUP BY 1, 2) AS g",
    ),
    (
        "sort",
        "SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY command_line, seq) AS n FROM process_events) AS s",
    ),
    (
        "join",
        "SELECT max(b.command_line) FROM process_events AS a JOIN process_events AS b ON a.entity_id = b.entity_id \
         WHERE a.command_line < b.cwd || 'x'",
    ),
];

/// The resident size now, in KiB.
pub(crate) fn resident() -> Option<u64> {
    status_kib("VmRSS:")
}

/// How the work ended, and how far the process was above `before` meanwhile; `None` where the system does not tell.
pub(crate) fn above<T>(before: Option<u64>, work: impl FnOnce() -> T) -> (T, Option<u64>) {
    // 5: forget the highest size so far (proc(5)).
    let forgotten = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    let done = work();
    let above = before.zip(status_kib("VmHWM:")).filter(|_| forgotten);
    (done, above.map(|(before, highest)| highest.saturating_sub(before) / 1024))
}

fn status_kib(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

pub(crate) fn told(grown: Option<u64>) -> String {
    grown.map_or_else(|| "not told here".to_owned(), |mib| format!("{mib} MiB"))
}

/// A line for each query.
pub(crate) struct Gathering(Vec<String>);

impl Gathering {
    pub(crate) fn over(store: &Arc<Store>) -> Self {
        let asker = Asker::new(store);
        // What planning and reading take once. What a query leaves to the allocator belongs to the next one as well.
        asker.ask("SELECT count(*) FROM process_events WHERE command_line LIKE '%x%'");
        let before = resident();
        let line = |(name, sql): &(&str, &str)| {
            let ((_, lacks), grown) = above(before, || asker.ask(sql));
            let whole = if lacks.is_empty() { "whole".to_owned() } else { lacks };
            format!("| {name} | {} | {whole} |", told(grown))
        };
        Self(GATHERING.iter().map(line).collect())
    }

    pub(crate) fn print(&self) {
        println!(
            "\n| needs more than its pool of 64 MiB | highest resident size above that of before | answer |\n|---|---|---|"
        );
        self.0.iter().for_each(|line| println!("{line}"));
    }
}
