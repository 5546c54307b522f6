//! Events as they come, for one operator, with an optional condition.
//!
//! The condition is planned by the same gates as any query and runs over each arriving batch. A follower that does not keep
//! up is told how many events it missed; nobody else notices.

use daemoneye_engine::sql::{Checked, QueryError, SqlRefusal, check, evaluate, page_columns, value_at};
use daemoneye_engine::{RecordBatch, schema};
use daemoneye_eventbus::Caller;
use daemoneye_lib::proto::{EventsFollow, Fault, Problems, Refusal, ResultPage, Row, operator_response::Answer};
use tokio_util::sync::CancellationToken;

use super::query::{beginning, fault};
use super::{Answers, Operators, internal, say};

/// Rows of one page.
const PAGE_ROWS: usize = 500;
/// What stands before the condition on its line; places of refusals are given without it.
const PREFIX: &str = "SELECT * FROM process_events WHERE ";

impl Operators {
    pub(super) async fn follow(
        &self,
        caller: &Caller,
        follow: &EventsFollow,
        answers: &Answers,
        cancel: CancellationToken,
    ) -> Result<(), Fault> {
        let worker = self.live_only("events follow")?;
        let condition = match condition(&follow.r#where) {
            Ok(condition) => condition,
            Err(error) => {
                self.audit_refusal(caller, beginning(&follow.r#where), &error).await;
                return Err(fault(&error));
            }
        };
        let shutdown = worker.shutdown_token();
        let mut follower = worker.followers.join();
        // Planned once over no rows: an unknown column is refused now, not at the first event.
        let nothing = RecordBatch::new_empty(schema::process_events_schema());
        let columns = page_columns(&nothing.schema());
        matching(condition.clone(), nothing).await?;
        // An empty page first: it tells the columns, and that the following has begun.
        if !say(answers, Answer::Page(ResultPage { columns, rows: Vec::new() })).await {
            return Ok(());
        }
        loop {
            let batch = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = shutdown.cancelled() => return Ok(()),
                batch = follower.next() => batch,
            };
            let Some(batch) = batch else { return Ok(()) };
            let missed = follower.missed();
            if missed > 0 && !say(answers, Answer::Problems(told(missed))).await {
                return Ok(());
            }
            for found in matching(condition.clone(), batch).await? {
                if !send(answers, &found).await {
                    return Ok(());
                }
            }
        }
    }
}

fn told(missed: u64) -> Problems {
    let message = format!("{missed} events came faster than they were read and are not shown; the store has them");
    Problems { problems: vec![Refusal { message, hint: "narrow the condition".to_owned(), ..Refusal::default() }] }
}

/// The checked condition; none when everything is wanted.
fn condition(text: &str) -> Result<Option<Checked>, QueryError> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    // Bare first: a parenthesis that would close ours is refused where it stands, and so is what is missing at the end. Then in
    // parentheses, where no further clause fits in; the line end keeps a comment from swallowing the last one.
    let checked = check(&format!("{PREFIX} {text}")).and_then(|_| check(&format!("{PREFIX}({text}\n)")));
    let checked = checked.map_err(|refusal| QueryError::Refused(without_prefix(refusal)))?;
    // It runs over each batch for as long as somebody follows, outside the bounds of a query: it may cost what its rows cost.
    if checked.subqueries() > 0 || checked.parameters() > 0 {
        return Err(QueryError::Refused(SqlRefusal::whole(
            "a condition to follow by looks at one event alone, without subqueries and parameters",
            "ask with `query` for what lies in the store",
        )));
    }
    Ok(Some(checked))
}

/// What the gates say of the statement around it, as if the condition stood alone.
fn without_prefix(mut refusal: SqlRefusal) -> SqlRefusal {
    if refusal.hint.starts_with("write one SELECT") {
        refusal.hint = "write one condition, such as event_type = 'start' AND uid = 0".to_owned();
    }
    if refusal.line == 1 {
        let before = u32::try_from(PREFIX.len() + 1).unwrap_or(u32::MAX);
        refusal.column = refusal.column.saturating_sub(before).max(1);
    }
    refusal
}

async fn matching(condition: Option<Checked>, batch: RecordBatch) -> Result<Vec<RecordBatch>, Fault> {
    let Some(condition) = condition else { return Ok(vec![batch]) };
    let done = tokio::task::spawn_blocking(move || evaluate(&condition, "process_events", vec![batch])).await;
    done.map_err(|error| internal(&error))?.map_err(|error| match error {
        QueryError::Planning(refusal) => fault(&QueryError::Planning(without_prefix(refusal))),
        other => fault(&other),
    })
}

async fn send(answers: &Answers, batch: &RecordBatch) -> bool {
    let rows: Vec<usize> = (0..batch.num_rows()).collect();
    for chunk in rows.chunks(PAGE_ROWS) {
        let rows = chunk
            .iter()
            .map(|row| Row { values: batch.columns().iter().map(|column| value_at(column, *row)).collect() });
        if !say(answers, Answer::Page(ResultPage { columns: Vec::new(), rows: rows.collect() })).await {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Refusal {
        fault(&condition(text).unwrap_err()).problems.swap_remove(0)
    }

    #[test]
    fn a_condition_is_one_condition_and_its_mistakes_are_placed_in_it() {
        for text in ["", "pid = 1", "(pid = 1) OR (pid = 2)", "name = ')' -- (", "pid IN (1, 2)\n AND uid = 0"] {
            assert!(condition(text).is_ok(), "{text}");
        }
        for (text, line, column) in [
            ("1=1) OR (1=1", 1, 4),
            ("name='x' AND", 1, 13),
            ("pid = 1\n AND )", 2, 6),
            ("pid = 1 ORDER BY pid", 1, 9),
            ("1=1 UNION SELECT * FROM process_events", 1, 5),
        ] {
            let refusal = refused(text);
            assert_eq!((refusal.line, refusal.column), (line, column), "{text}: {refusal:?}");
            assert!(refusal.hint.starts_with("write one condition"), "{refusal:?}");
        }
        for (text, told) in [
            ("pid IN (SELECT pid FROM process_events)", "one event alone"),
            ("EXISTS (SELECT 1)", "one event alone"),
            ("pid IN (SELECT a.pid FROM process_events a, process_events b, process_events c)", "one event alone"),
        ] {
            assert!(refused(text).message.contains(told), "{text}: {:?}", refused(text));
        }
        assert!(condition("1=1; SELECT 1").is_err() && condition("pid = $1").is_err());
    }
}
