//! Stored events for a tool: the rows of one of our own SELECTs as a batch, page by page.

use daemoneye_engine::RecordBatch;
use daemoneye_engine::replay::batch_of_rows;
use daemoneye_engine::sql::QueryRun;
use daemoneye_lib::proto::{Fault, QueryDone, QueryRequest, Value, value::Kind};
use tokio_util::sync::CancellationToken;

use super::super::query::fault;
use super::super::{Operators, internal};

/// Rows of one page: a batch that costs little beside its overhead.
const PAGE_ROWS: u32 = 1_000;

/// An answer under way.
pub(super) struct Rows {
    run: QueryRun,
}

impl Rows {
    /// The next rows; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, Fault> {
        let Some(page) = self.run.next_page().await.map_err(|error| fault(&error))? else { return Ok(None) };
        batch_of_rows(self.run.columns(), &page.rows).map(Some).map_err(|error| internal(&error))
    }

    /// How it ended; final after the last rows.
    pub(super) fn done(&self) -> QueryDone {
        self.run.done()
    }
}

impl Operators {
    /// Asks without the caps of a query: a tool wants all there is.
    pub(super) async fn rows(
        &self,
        sql: String,
        params: Vec<Value>,
        cancel: CancellationToken,
    ) -> Result<Rows, Fault> {
        let request = QueryRequest { sql, params, page_rows: PAGE_ROWS, ..QueryRequest::default() };
        let run = self.engine.export(request, cancel).await.map_err(|error| fault(&error))?;
        Ok(Rows { run })
    }

    /// The one number that a question has for an answer.
    pub(super) async fn number(&self, sql: &str, params: Vec<Value>, cancel: CancellationToken) -> Result<u64, Fault> {
        let request = QueryRequest { sql: sql.to_owned(), params, ..QueryRequest::default() };
        let mut run = self.engine.export(request, cancel).await.map_err(|error| fault(&error))?;
        let mut number = 0;
        while let Some(page) = run.next_page().await.map_err(|error| fault(&error))? {
            let first = page.rows.first().and_then(|row| row.values.first()).and_then(|value| value.kind.clone());
            if let Some(Kind::Integer(found)) = first {
                number = u64::try_from(found).unwrap_or_default();
            }
        }
        Ok(number)
    }
}

pub(super) const fn time(us: i64) -> Value {
    Value { kind: Some(Kind::TimestampUs(us)) }
}

pub(super) fn text(text: &str) -> Value {
    Value { kind: Some(Kind::Text(text.to_owned())) }
}
