//! Who may do what: role × verb × topic as one table, asked wherever a message enters the broker or the operator socket.
//!
//! What is not in the table is forbidden. The agent itself publishes and subscribes inside its own process and is not
//! listed. `{id}` in a topic stands for the id under which the peer was admitted.

use daemoneye_lib::proto::{Role, collector_request, operator_request};

/// What a peer may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Show one alert.
    AlertShow,
    /// Take a ledger that is not the one that it was as it is.
    AuditAcceptLedger,
    /// Compare the store with the ledger.
    AuditCompare,
    /// Ask for the leaves that a proof of an event needs.
    AuditLeaves,
    /// Let the ledger's key hand over to a new one.
    AuditRotateKey,
    /// Cancel a request of one's own connection.
    Cancel,
    /// Show the configuration.
    ConfigShow,
    /// Copy the store out.
    DataBackup,
    /// Take rows out without the caps of a query.
    DataExport,
    /// Check everything that is stored.
    DataFsck,
    /// Show what retention does.
    DataRetention,
    /// Show how much is stored.
    DataStats,
    /// Merge segments and give room back now.
    DataVacuum,
    /// Leave the bus in order.
    Deregister,
    /// Follow events as they come.
    EventsFollow,
    /// Ask for the health report.
    Health,
    /// Publish on a topic.
    Publish,
    /// Run a query.
    Query,
    /// Join the bus as a collector.
    Register,
    /// Run a rule over stored events.
    RulesBacktest,
    /// Check rule texts.
    RulesCheck,
    /// Ask why a rule matches an event or not.
    RulesExplain,
    /// Take out the loaded rules.
    RulesExport,
    /// Load the rules anew.
    RulesReload,
    /// Subscribe to a pattern.
    Subscribe,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Right {
    /// Who.
    pub role: Role,
    /// May do what.
    pub verb: Verb,
    /// On which topics, for the verbs that have one.
    pub topics: Option<&'static str>,
}

const fn plain(role: Role, verb: Verb) -> Right {
    Right { role, verb, topics: None }
}

const fn on(role: Role, verb: Verb, topics: &'static str) -> Right {
    Right { role, verb, topics: Some(topics) }
}

/// The table.
pub static RIGHTS: &[Right] = &[
    on(Role::Collector, Verb::Publish, "events.process.+"),
    on(Role::Collector, Verb::Publish, "events.network.#"),
    on(Role::Collector, Verb::Publish, "events.filesystem.#"),
    on(Role::Collector, Verb::Publish, "events.performance.#"),
    on(Role::Collector, Verb::Publish, "events.collector.{id}"),
    on(Role::Collector, Verb::Publish, "control.health.heartbeat.{id}"),
    on(Role::Collector, Verb::Publish, "control.rpc.response.{id}"),
    on(Role::Collector, Verb::Subscribe, "control.collector.lifecycle"),
    on(Role::Collector, Verb::Subscribe, "control.collector.{id}"),
    plain(Role::Collector, Verb::Register),
    plain(Role::Collector, Verb::Deregister),
    on(Role::Subscriber, Verb::Subscribe, "events.#"),
    on(Role::Subscriber, Verb::Subscribe, "alerts.#"),
    on(Role::Subscriber, Verb::Subscribe, "control.health.#"),
    on(Role::Subscriber, Verb::Subscribe, "control.collector.lifecycle"),
    plain(Role::Operator, Verb::Query),
    plain(Role::Operator, Verb::Cancel),
    plain(Role::Operator, Verb::Health),
    plain(Role::Operator, Verb::RulesCheck),
    plain(Role::Operator, Verb::RulesBacktest),
    plain(Role::Operator, Verb::RulesExplain),
    plain(Role::Operator, Verb::RulesExport),
    plain(Role::Operator, Verb::RulesReload),
    plain(Role::Operator, Verb::AlertShow),
    plain(Role::Operator, Verb::AuditAcceptLedger),
    plain(Role::Operator, Verb::AuditRotateKey),
    plain(Role::Operator, Verb::AuditCompare),
    plain(Role::Operator, Verb::AuditLeaves),
    plain(Role::Operator, Verb::EventsFollow),
    plain(Role::Operator, Verb::ConfigShow),
    plain(Role::Operator, Verb::DataBackup),
    plain(Role::Operator, Verb::DataExport),
    plain(Role::Operator, Verb::DataFsck),
    plain(Role::Operator, Verb::DataRetention),
    plain(Role::Operator, Verb::DataStats),
    plain(Role::Operator, Verb::DataVacuum),
    plain(Role::Viewer, Verb::Query),
    plain(Role::Viewer, Verb::Cancel),
    plain(Role::Viewer, Verb::Health),
    plain(Role::Viewer, Verb::RulesBacktest),
    plain(Role::Viewer, Verb::RulesCheck),
    plain(Role::Viewer, Verb::RulesExplain),
    plain(Role::Viewer, Verb::RulesExport),
    plain(Role::Viewer, Verb::AlertShow),
    plain(Role::Viewer, Verb::AuditCompare),
    plain(Role::Viewer, Verb::AuditLeaves),
    plain(Role::Viewer, Verb::EventsFollow),
    plain(Role::Viewer, Verb::ConfigShow),
    plain(Role::Viewer, Verb::DataExport),
    plain(Role::Viewer, Verb::DataFsck),
    plain(Role::Viewer, Verb::DataRetention),
    plain(Role::Viewer, Verb::DataStats),
];

/// Whether `role` may do a verb that has no topic.
#[must_use]
pub fn may(role: Role, verb: Verb) -> bool {
    RIGHTS.iter().any(|right| right.role == role && right.verb == verb && right.topics.is_none())
}

/// Whether the peer `id` in `role` may publish on the topic, or subscribe to the whole of the pattern, `wanted`.
#[must_use]
pub fn may_on(role: Role, verb: Verb, wanted: &str, id: &str) -> bool {
    RIGHTS.iter().any(|right| {
        right.role == role && right.verb == verb && right.topics.is_some_and(|topics| covers(topics, wanted, id))
    })
}

/// Whether everything that `wanted` can match is matched by `allowed` too.
fn covers(allowed: &str, wanted: &str, id: &str) -> bool {
    let mut wanted = wanted.split('.');
    for segment in allowed.split('.') {
        let segment = if segment == "{id}" { id } else { segment };
        match (segment, wanted.next()) {
            ("#", _) => return true,
            (_, None | Some("#")) => return false,
            ("+", Some(_)) => {}
            (literal, Some(other)) if literal == other => {}
            _ => return false,
        }
    }
    wanted.next().is_none()
}

/// The verb of a request that a collector may send; `None` for those that only the agent sends.
pub(crate) const fn collector_verb(verb: &collector_request::Verb) -> Option<Verb> {
    match verb {
        collector_request::Verb::Register(_) => Some(Verb::Register),
        collector_request::Verb::Deregister(_) => Some(Verb::Deregister),
        _ => None,
    }
}

/// The verb of an operator's request.
pub(crate) const fn operator_verb(verb: &operator_request::Verb) -> Verb {
    match verb {
        operator_request::Verb::Query(_) => Verb::Query,
        operator_request::Verb::Cancel(_) => Verb::Cancel,
        operator_request::Verb::Health(_) => Verb::Health,
        operator_request::Verb::RulesCheck(_) => Verb::RulesCheck,
        operator_request::Verb::RulesBacktest(_) => Verb::RulesBacktest,
        operator_request::Verb::RulesExplain(_) => Verb::RulesExplain,
        operator_request::Verb::RulesExport(_) => Verb::RulesExport,
        operator_request::Verb::RulesReload(_) => Verb::RulesReload,
        operator_request::Verb::AlertShow(_) => Verb::AlertShow,
        operator_request::Verb::AuditAcceptLedger(_) => Verb::AuditAcceptLedger,
        operator_request::Verb::AuditRotateKey(_) => Verb::AuditRotateKey,
        operator_request::Verb::AuditCompare(_) => Verb::AuditCompare,
        operator_request::Verb::AuditLeaves(_) => Verb::AuditLeaves,
        operator_request::Verb::EventsFollow(_) => Verb::EventsFollow,
        operator_request::Verb::ConfigShow(_) => Verb::ConfigShow,
        operator_request::Verb::DataStats(_) => Verb::DataStats,
        operator_request::Verb::DataRetention(_) => Verb::DataRetention,
        operator_request::Verb::DataFsck(_) => Verb::DataFsck,
        operator_request::Verb::DataVacuum(_) => Verb::DataVacuum,
        operator_request::Verb::DataBackup(_) => Verb::DataBackup,
        operator_request::Verb::DataExport(_) => Verb::DataExport,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_speaks_for_itself_only() {
        let may = |verb, topic| may_on(Role::Collector, verb, topic, "procmond");
        assert!(may(Verb::Publish, "events.process.start"));
        assert!(may(Verb::Publish, "control.health.heartbeat.procmond"));
        assert!(may(Verb::Subscribe, "control.collector.procmond"));
        for topic in [
            "control.health.heartbeat.other",
            "events.collector.other",
            "control.collector.procmond",
            "control.collector.lifecycle",
            "alerts.high",
            "events.process",
            "events.process.start.more",
        ] {
            assert!(!may(Verb::Publish, topic), "{topic}");
        }
        for pattern in ["#", "control.#", "control.collector.+", "events.process.start", "control.collector.#"] {
            assert!(!may(Verb::Subscribe, pattern), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_needs_the_right_to_everything_that_it_selects() {
        let may = |pattern| may_on(Role::Subscriber, Verb::Subscribe, pattern, "watcher");
        assert!(may("events.#") && may("events.process.+") && may("events.+.start") && may("events"));
        assert!(!may("+.process.start") && !may("#") && !may("control.collector.procmond"));
    }

    #[test]
    fn a_viewer_reads_and_changes_nothing() {
        assert!(may(Role::Viewer, Verb::Query) && may(Role::Operator, Verb::RulesReload));
        assert!(!may(Role::Viewer, Verb::RulesReload) && !may(Role::Viewer, Verb::Register));
        assert!(may(Role::Operator, Verb::AuditRotateKey) && !may(Role::Viewer, Verb::AuditRotateKey));
        assert!(may(Role::Operator, Verb::AuditAcceptLedger) && !may(Role::Viewer, Verb::AuditAcceptLedger));
        assert!(!may(Role::Viewer, Verb::DataVacuum) && !may(Role::Viewer, Verb::DataBackup));
        assert!(!may(Role::Unspecified, Verb::Health) && !may(Role::Collector, Verb::Query));
    }

    #[test]
    fn the_table_is_the_one_that_was_decided() {
        let line = |right: &Right| {
            let topics = right.topics.unwrap_or("");
            format!("{:15} {:13} {topics}", right.role.as_str_name(), format!("{:?}", right.verb))
                .trim_end()
                .to_owned()
        };
        insta::assert_snapshot!(RIGHTS.iter().map(line).collect::<Vec<_>>().join("\n"));
    }
}
