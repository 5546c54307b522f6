//! SELECT for operators: pages as the engine makes them, then how it ended. A refused statement is audited.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use daemoneye_engine::sql::QueryError;
use daemoneye_eventbus::Caller;
use daemoneye_lib::proto::{Fault, FaultKind, QueryRequest, operator_response::Answer};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::data::actor;
use super::{Answers, Operators, say};

/// Characters of a statement that an audit entry keeps.
const AUDITED_CHARS: usize = 1000;
/// Refusals, or exports, in a minute that get an entry of their own: more than a person types. The ledger is kept for years, and whoever may
/// ask could fill it.
const AUDITED_A_MINUTE: u32 = 30;
const MINUTE: Duration = Duration::from_secs(60);

/// Bounds how many of a kind are audited; those that were not are counted in the next entry.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Minute>);

#[derive(Debug, Default)]
struct Minute {
    began: Option<Instant>,
    audited: u32,
    left_out: u64,
}

impl Refusals {
    /// How many before this one have no entry; `None`: this one gets none either.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if minute.began.is_none_or(|began| now.duration_since(began) >= MINUTE) {
            minute.began = Some(now);
            minute.audited = 0;
        }
        if minute.audited >= AUDITED_A_MINUTE {
            minute.left_out = minute.left_out.saturating_add(1);
            return None;
        }
        minute.audited = minute.audited.saturating_add(1);
        Some(std::mem::take(&mut minute.left_out))
    }
}

impl Operators {
    pub(super) async fn query(
        &self,
        caller: &Caller,
        request: QueryRequest,
        answers: &Answers,
        cancel: CancellationToken,
    ) -> Result<(), Fault> {
        let sql = beginning(&request.sql);
        let mut run = match self.engine.query(request, cancel).await {
            Ok(run) => run,
            Err(error) => {
                self.audit_refusal(caller, sql, &error).await;
                return Err(fault(&error));
            }
        };
        while let Some(page) = run.next_page().await.map_err(|error| fault(&error))? {
            if !say(answers, Answer::Page(page)).await {
                return Ok(());
            }
        }
        say(answers, Answer::QueryDone(run.done())).await;
        Ok(())
    }

    pub(super) async fn audit_refusal(&self, caller: &Caller, sql: String, error: &QueryError) {
        if let (Some(worker), Some(refusal)) = (&self.worker, error.refusal()) {
            let Some(left_out) = self.refusals.admit(Instant::now()) else { return };
            let what = json!({
                "sql": sql,
                "message": refusal.message,
                "line": refusal.line,
                "column": refusal.column,
                "refused_since_without_entry": left_out,
            });
            worker.audit(actor(caller), "query-refused", what).await;
        }
    }
}

/// What an entry keeps of a statement.
pub(super) fn beginning(sql: &str) -> String {
    sql.chars().take(AUDITED_CHARS).collect()
}

/// The closed kind for the socket.
pub(super) fn fault(error: &QueryError) -> Fault {
    let kind = match error {
        QueryError::Busy { .. } => FaultKind::ResourceExhausted,
        QueryError::Cancelled => FaultKind::Cancelled,
        QueryError::Planning(_) | QueryError::Refused(_) => FaultKind::Refused,
        QueryError::Execution(_) => FaultKind::Failed,
        _ => FaultKind::Unavailable,
    };
    let mut fault = Fault::new(kind, error.to_string());
    fault.problems = error.refusal().map(|refusal| refusal.to_proto("")).into_iter().collect();
    fault
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_beyond_the_bound_of_a_minute_are_counted_in_the_next_entry() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        for _ in 0..AUDITED_A_MINUTE {
            assert_eq!(refusals.admit(start), Some(0));
        }
        assert_eq!(refusals.admit(start), None);
        assert_eq!(refusals.admit(start + MINUTE / 2), None);
        assert_eq!(refusals.admit(start + MINUTE), Some(2));
        assert_eq!(refusals.admit(start + MINUTE), Some(0));
    }
}
