//! SELECT for operators: pages as the engine makes them, then how it ended. A refused statement is audited.

use daemoneye_engine::sql::QueryError;
use daemoneye_eventbus::Caller;
use daemoneye_lib::proto::{Fault, FaultKind, QueryRequest, operator_response::Answer};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::data::actor;
use super::{Answers, Operators, say};

/// Characters of a statement that an audit entry keeps.
const AUDITED_CHARS: usize = 1000;

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
            let what = json!({
                "sql": sql,
                "message": refusal.message,
                "line": refusal.line,
                "column": refusal.column,
            });
            self.refusals.write(worker, actor(caller), what).await;
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
