//! Every table that SQL can name, with every column: type, unit, meaning and an example.
//!
//! This is the only place where a table's columns are listed. The schemas that queries see, the tables `tables` and
//! `columns`, the reference page and `.schema` are made of it. What describes a process is shared with `process_events`,
//! so that a column means the same wherever it stands; where it does not, the table has one of its own under that name.

mod alerts;
mod processes;
mod rules;
mod system;

use crate::columns::{Column, PROCESS_EVENTS};

/// One table.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// SQL name.
    pub name: &'static str,
    /// What its rows are, in one line.
    pub meaning: &'static str,
    /// The columns of [`PROCESS_EVENTS`] that it has too, in their order.
    shared: fn(&Column) -> bool,
    /// Columns of its own: in the place of a shared one of the same name, or behind them.
    own: &'static [Column],
}

impl Table {
    /// Its columns, in the order of `SELECT *`.
    pub fn columns(&self) -> impl Iterator<Item = &'static Column> {
        let (shared, own) = (self.shared, self.own);
        let of_its_own = |name: &str| own.iter().find(|column| column.name == name);
        let first = PROCESS_EVENTS.iter().filter(move |column| shared(column));
        let further = own
            .iter()
            .filter(move |column| !PROCESS_EVENTS.iter().any(|known| known.name == column.name && shared(known)));
        first.map(move |column| of_its_own(column.name).unwrap_or(column)).chain(further)
    }
}

/// Every table, in the order in which they are explained.
pub const TABLES: &[Table] = &[
    Table {
        name: "process_events",
        meaning: "every event, as far back as the retention reaches",
        shared: |_| true,
        own: &[],
    },
    Table {
        name: "processes",
        meaning: "the processes that live now, each by the latest that was told about it",
        shared: processes::describes_a_process,
        own: processes::OF_THE_LIVING,
    },
    Table {
        name: "process_lifetimes",
        meaning: "one row for each process that ended within the retention or still lives: start, stop, exit code, runtime, peaks; \
                  processes_at('2026-01-31T12:00Z') selects those that lived at an instant",
        shared: processes::belongs_to_a_lifetime,
        own: processes::OF_A_LIFETIME,
    },
    Table { name: "alerts", meaning: "what rules found", shared: |_| false, own: alerts::ALERTS },
    Table {
        name: "alert_deliveries",
        meaning: "the way of each alert to each sink",
        shared: |_| false,
        own: alerts::ALERT_DELIVERIES,
    },
    Table {
        name: "rules",
        meaning: "every rule that was ever loaded, archived ones included",
        shared: |_| false,
        own: alerts::RULES,
    },
    Table {
        name: "rule_versions",
        meaning: "what each version of a rule said, with the files that override it; the newest of each rule, at most 16 and 1 MiB of older ones",
        shared: |_| false,
        own: rules::RULE_VERSIONS,
    },
    Table {
        name: "rule_stats",
        meaning: "what the rules that run have done and cost since they were loaded with this text; none over a copied store",
        shared: |_| false,
        own: rules::RULE_STATS,
    },
    Table {
        name: "rule_exceptions",
        meaning: "what rules do not mean, who says so and until when; what it hid stands in alerts as suppressed",
        shared: |_| false,
        own: rules::RULE_EXCEPTIONS,
    },
    Table {
        name: "rule_lists",
        meaning: "the named sets of values that rules use",
        shared: |_| false,
        own: rules::RULE_LISTS,
    },
    Table {
        name: "rule_problems",
        meaning: "everything that is wrong with the files of rules, as they were read last",
        shared: |_| false,
        own: rules::RULE_PROBLEMS,
    },
    Table { name: "rule_packs", meaning: "the packs that rules come in", shared: |_| false, own: rules::RULE_PACKS },
    Table {
        name: "coverage",
        meaning: "what was not seen or is not kept any more, from when to when and why",
        shared: |_| false,
        own: system::COVERAGE,
    },
    Table {
        name: "collectors",
        meaning: "the collectors as they stand now; none over a copied store",
        shared: |_| false,
        own: system::COLLECTORS,
    },
    Table {
        name: "scans",
        meaning: "what collectors told about their looks at the whole process table; the 10,000 newest",
        shared: |_| false,
        own: system::SCANS,
    },
    Table {
        name: "system_info",
        meaning: "the host, as it was at each registration of a collector; the 1,000 newest",
        shared: |_| false,
        own: system::SYSTEM_INFO,
    },
    Table {
        name: "audit_entries",
        meaning: "the newest entries of the ledger, at most 50,000, as its files have them; audit verify proves them",
        shared: |_| false,
        own: system::AUDIT_ENTRIES,
    },
    Table {
        name: "metrics",
        meaning: "every number of health, as it is now; a collector's as its last heartbeat told",
        shared: |_| false,
        own: system::METRICS,
    },
    Table { name: "tables", meaning: "this list", shared: |_| false, own: system::TABLES },
    Table { name: "columns", meaning: "the columns of every table", shared: |_| false, own: system::COLUMNS },
];

/// The table called `name`.
#[must_use]
pub fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_column_of_every_table_is_documented_once() {
        let mut tables = HashSet::new();
        for table in TABLES {
            assert!(tables.insert(table.name) && !table.meaning.is_empty(), "{}", table.name);
            let mut columns = HashSet::new();
            for column in table.columns() {
                let place = format!("{}.{}", table.name, column.name);
                assert!(columns.insert(column.name), "{place} stands twice");
                assert!(column.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{place}");
                assert!(!column.meaning.is_empty() && !column.example.is_empty(), "{place}");
            }
            assert!(!columns.is_empty(), "{}", table.name);
        }
    }

    #[test]
    fn a_column_of_its_own_stands_where_the_shared_one_would() {
        let names: Vec<&str> = table("process_lifetimes").unwrap().columns().map(|column| column.name).collect();
        assert_eq!(names.first(), Some(&"time"));
        assert_eq!(names.iter().filter(|name| **name == "start_time").count(), 1);
        assert!(names.ends_with(&["stop_time", "max_cpu_usage", "max_memory_usage"]), "{names:?}");
        let time = table("processes").unwrap().columns().next().unwrap();
        assert_ne!(time.meaning, PROCESS_EVENTS[0].meaning);
    }
}
