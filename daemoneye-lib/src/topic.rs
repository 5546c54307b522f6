//! Topics of the event bus. The canonical topics are one enum, and the only topic strings in the house.
//!
//! A topic has 1 to 5 segments of `a-z 0-9 - _` joined by dots. In a pattern `+` stands for one segment and `#`, only last,
//! for zero or more.

use std::fmt;
use std::str::FromStr;

use crate::proto::{AlertSeverity, EventType, Word};

/// Segments in a topic or pattern; deeper ones are refused.
pub const MAX_SEGMENTS: usize = 5;

/// Topics that carry process events start with this.
pub const PROCESS_TOPICS: &str = "events.process.";

/// Every topic that the programs publish.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// `alerts.{severity}`
    Alerts(AlertSeverity),
    /// `control.collector.{id}`
    Collector(String),
    /// `events.collector.{id}`: a collector's own notices, coverage gaps among them.
    CollectorEvents(String),
    /// `control.health.heartbeat.{id}`
    Heartbeat(String),
    /// `control.collector.lifecycle`
    Lifecycle,
    /// `events.process.{start,stop,modify,suspicious}`
    Process(EventType),
    /// `control.rpc.response.{id}`
    RpcResponse(String),
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alerts(severity) => write!(f, "alerts.{}", severity.word().unwrap_or("info")),
            Self::Collector(id) => write!(f, "control.collector.{id}"),
            Self::CollectorEvents(id) => write!(f, "events.collector.{id}"),
            Self::Heartbeat(id) => write!(f, "control.health.heartbeat.{id}"),
            Self::Lifecycle => f.write_str("control.collector.lifecycle"),
            Self::Process(kind) => f.write_str(process_topic(*kind)),
            Self::RpcResponse(id) => write!(f, "control.rpc.response.{id}"),
        }
    }
}

/// `events.process.{kind}` without an allocation: it is written once per event.
#[must_use]
pub const fn process_topic(kind: EventType) -> &'static str {
    match kind {
        EventType::Start | EventType::Unspecified => "events.process.start",
        EventType::Stop => "events.process.stop",
        EventType::Modify => "events.process.modify",
        EventType::Suspicious => "events.process.suspicious",
    }
}

/// Why a topic or pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// More than [`MAX_SEGMENTS`] segments.
    #[error("topic {0:?} has more than {MAX_SEGMENTS} segments")]
    LimitSegments(String),
    /// An empty segment, or a character outside `a-z 0-9 - _`.
    #[error("topic {0:?} has an empty segment or a character outside a-z, 0-9, '-' and '_'")]
    MisuseCharacter(String),
    /// `#` anywhere but last, or a wildcard inside a segment.
    #[error("pattern {0:?}: '+' stands alone in a segment and '#' only as the last one")]
    MisuseWildcard(String),
}

/// A checked subscription pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// The text that was checked.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments, wildcards included.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// Whether `topic` is selected by this pattern.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        let mut topic_segments = topic.split('.');
        for segment in self.segments() {
            match segment {
                "#" => return true,
                "+" => {
                    if topic_segments.next().is_none() {
                        return false;
                    }
                }
                literal => {
                    if topic_segments.next() != Some(literal) {
                        return false;
                    }
                }
            }
        }
        topic_segments.next().is_none()
    }
}

impl FromStr for Pattern {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let segments: Vec<&str> = text.split('.').collect();
        if segments.len() > MAX_SEGMENTS {
            return Err(TopicError::LimitSegments(text.to_owned()));
        }
        let last = segments.len().saturating_sub(1);
        for (at, segment) in segments.iter().enumerate() {
            match *segment {
                "+" => {}
                "#" if at == last => {}
                other if other.contains(['+', '#']) => return Err(TopicError::MisuseWildcard(text.to_owned())),
                other if !plain(other) => return Err(TopicError::MisuseCharacter(text.to_owned())),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }
}

/// Refuses what cannot be published.
///
/// # Errors
/// [`TopicError`] names the topic and what is wrong with it.
pub fn check(topic: &str) -> Result<(), TopicError> {
    if topic.split('.').count() > MAX_SEGMENTS {
        return Err(TopicError::LimitSegments(topic.to_owned()));
    }
    if topic.split('.').all(plain) { Ok(()) } else { Err(TopicError::MisuseCharacter(topic.to_owned())) }
}

fn plain(segment: &str) -> bool {
    !segment.is_empty()
        && segment.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_table_of_wildcards_holds() {
        let topics = [
            "events",
            "events.process",
            "events.process.start",
            "events.process.stop",
            "events.network.flow.open",
            "control.health.heartbeat.procmond",
            "alerts.high",
        ];
        let patterns =
            ["#", "events.#", "events.process.#", "events.process.+", "events.+.start", "+", "+.+", "alerts.high"];
        let mut table = String::new();
        for pattern in patterns {
            let checked: Pattern = pattern.parse().unwrap();
            for topic in topics {
                table.push_str(&format!("{pattern:18} {topic:36} {}\n", checked.matches(topic)));
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn what_is_not_a_topic_is_refused_by_name() {
        assert!(matches!(check("a.b.c.d.e.f"), Err(TopicError::LimitSegments(_))));
        for bad in ["", "a..b", "A.b", "a.b ", "a.*", "ä"] {
            assert!(matches!(check(bad), Err(TopicError::MisuseCharacter(_))), "{bad:?}");
        }
        for bad in ["#.a", "a.b+", "a#"] {
            assert!(matches!(bad.parse::<Pattern>(), Err(TopicError::MisuseWildcard(_))), "{bad:?}");
        }
    }

    #[test]
    fn every_canonical_topic_is_a_valid_topic() {
        for topic in [
            Topic::Alerts(AlertSeverity::High),
            Topic::Collector("procmond".into()),
            Topic::CollectorEvents("procmond".into()),
            Topic::Heartbeat("procmond".into()),
            Topic::Lifecycle,
            Topic::Process(EventType::Suspicious),
            Topic::RpcResponse("procmond".into()),
        ] {
            assert_eq!(check(&topic.to_string()), Ok(()), "{topic}");
        }
    }
}
