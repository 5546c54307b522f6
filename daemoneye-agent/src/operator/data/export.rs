//! `data export`: the rows of one SELECT as pages, or as the parts of a Parquet file, without the caps of an ad-hoc query on
//! rows and time. It counts as one of the queries that run at a time, shares their memory, and is audited.

use std::time::Instant;

use daemoneye_engine::sql::ParquetExport;
use daemoneye_eventbus::Caller;
use daemoneye_lib::proto::{
    DataExport, Fault, FilePart, Progress, QueryRequest, ResultPage, operator_response::Answer,
};
use serde_json::json;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use super::super::query::{beginning, fault};
use super::super::{Answers, Operators, internal, say};
use super::{PART_BYTES, actor, alone};

/// What the one file of an export is called between the two programs.
const EXPORT_PATH: &str = "export.parquet";

impl Operators {
    pub(in crate::operator) async fn data_export(
        &self,
        caller: &Caller,
        export: DataExport,
        answers: &Answers,
        cancel: CancellationToken,
    ) -> Result<(), Fault> {
        let _alone = alone(&self.whole_store)?;
        let DataExport { sql, params, parquet } = export;
        let audited = beginning(&sql);
        let request = QueryRequest { sql, params, ..QueryRequest::default() };
        let mut run = match self.engine.export(request, cancel).await {
            Ok(run) => run,
            Err(error) => {
                self.audit_refusal(caller, audited, &error).await;
                return Err(fault(&error));
            }
        };
        // Before anything leaves: an export that was begun may have been kept.
        self.audit_export(caller, audited, parquet).await;
        let mut file = match parquet {
            true => {
                let file = ParquetExport::new(run.columns()).map_err(|error| internal(&error))?;
                Some(Encoding { file, ready: Vec::new(), rows: 0 })
            }
            false => None,
        };
        while let Some(page) = run.next_page().await.map_err(|error| fault(&error))? {
            let went = match &mut file {
                Some(file) => file.take(&page, answers).await?,
                None => say(answers, Answer::Page(page)).await,
            };
            if !went {
                return Ok(());
            }
        }
        if let Some(file) = file
            && !file.finish(answers).await?
        {
            return Ok(());
        }
        say(answers, Answer::QueryDone(run.done())).await;
        Ok(())
    }

    async fn audit_export(&self, caller: &Caller, sql: String, parquet: bool) {
        let Some(worker) = &self.worker else { return };
        let Some(left_out) = self.exports.admit(Instant::now()) else { return };
        let what = json!({
            "sql": sql,
            "as": if parquet { "parquet" } else { "rows" },
            "exports_since_without_entry": left_out,
        });
        worker.audit(actor(caller), "data-export", what).await;
    }
}

/// A file under way.
struct Encoding {
    file: ParquetExport,
    ready: Vec<u8>,
    rows: u64,
}

impl Encoding {
    /// Encodes a page, tells how far it is and sends what is ready; false: the caller has left.
    async fn take(&mut self, page: &ResultPage, answers: &Answers) -> Result<bool, Fault> {
        // Compressing a row group takes longer than another request should wait for this thread.
        let bytes = block_in_place(|| self.file.take(&page.rows)).map_err(|error| internal(&error))?;
        self.ready.extend(bytes);
        self.rows = self.rows.saturating_add(page.rows.len() as u64);
        let progress = Answer::Progress(Progress { done: self.rows, total: 0 });
        Ok(say(answers, progress).await
            && (self.ready.len() < PART_BYTES || send(std::mem::take(&mut self.ready), false, answers).await))
    }

    async fn finish(mut self, answers: &Answers) -> Result<bool, Fault> {
        self.ready.extend(block_in_place(|| self.file.finish()).map_err(|error| internal(&error))?);
        Ok(send(self.ready, true, answers).await)
    }
}

async fn send(bytes: Vec<u8>, last: bool, answers: &Answers) -> bool {
    let whole = bytes.chunks(PART_BYTES).count().saturating_sub(1);
    for (at, chunk) in bytes.chunks(PART_BYTES).enumerate() {
        let part = FilePart {
            path: EXPORT_PATH.to_owned(),
            bytes: chunk.to_vec(),
            last: last && at == whole,
            blake3: Vec::new(),
        };
        if !say(answers, Answer::FilePart(part)).await {
            return false;
        }
    }
    true
}
