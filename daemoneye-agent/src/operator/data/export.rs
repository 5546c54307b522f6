//! `data export`: the rows of one SELECT as pages, or as the parts of a Parquet file, without the caps of an ad-hoc query on
//! rows and time. It counts as one of the queries that run at a time, shares their memory, and is audited.

use std::time::Duration;

use daemoneye_engine::sql::{ParquetExport, QueryRun};
use daemoneye_eventbus::Caller;
use daemoneye_lib::proto::{
    DataExport, Fault, FilePart, Progress, QueryDone, QueryRequest, operator_response::Answer,
};
use serde_json::json;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use super::super::query::{beginning, fault};
use super::super::{Answers, Operators, internal, say};
use super::reader::{Ended, hand_over, show, stopped};
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
        let alone = alone(&self.whole_store)?;
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
        let file = parquet.then(|| ParquetExport::new(run.columns())).transpose();
        let file = file.map_err(|error| internal(&error))?.map(|file| Encoding { file, ready: Vec::new() });
        let mut out = Leaving { file, rows: 0, answers, wait: self.reader_wait };
        let done = match out.pages(&mut run).await? {
            Ok(()) => run.done(),
            Err(Ended::Left) => return Ok(()),
            // What has left stands, and how it ended is told when the caller reads again.
            Err(Ended::Stopped) => run.give_up(self.reader_wait),
        };
        drop(alone);
        let done = QueryDone { rows: out.rows, ..done };
        match out.finish().await? {
            Ok(()) => drop(say(answers, Answer::QueryDone(done)).await),
            Err(Ended::Left) => {}
            Err(Ended::Stopped) => return Err(stopped("export", self.reader_wait)),
        }
        Ok(())
    }

    async fn audit_export(&self, caller: &Caller, sql: String, parquet: bool) {
        let Some(worker) = &self.worker else { return };
        let what = json!({
            "sql": sql,
            "as": if parquet { "parquet" } else { "rows" },
        });
        self.exports.write(worker, actor(caller), what).await;
    }
}

/// What is on its way to the caller, and how much of it.
struct Leaving<'a> {
    file: Option<Encoding>,
    /// Rows that have left, or are in the file.
    rows: u64,
    answers: &'a Answers,
    wait: Duration,
}

/// A file under way.
struct Encoding {
    file: ParquetExport,
    ready: Vec<u8>,
}

impl Leaving<'_> {
    async fn pages(&mut self, run: &mut QueryRun) -> Result<Result<(), Ended>, Fault> {
        while let Some(page) = run.next_page().await.map_err(|error| fault(&error))? {
            let rows = page.rows.len() as u64;
            let went = match &mut self.file {
                Some(file) => {
                    // Compressing a row group takes longer than another request should wait for this thread.
                    let bytes = block_in_place(|| file.file.take(&page.rows)).map_err(|error| internal(&error))?;
                    file.ready.extend(bytes);
                    self.rows = self.rows.saturating_add(rows);
                    show(self.answers, Progress { done: self.rows, total: 0 });
                    file.send(PART_BYTES, self.answers, self.wait).await
                }
                None => {
                    let went = hand_over(self.answers, Answer::Page(page), self.wait).await;
                    went.inspect(|()| self.rows = self.rows.saturating_add(rows))
                }
            };
            if went.is_err() {
                return Ok(went);
            }
        }
        Ok(Ok(()))
    }

    /// The end of the file, also of one that lacks rows.
    async fn finish(self) -> Result<Result<(), Ended>, Fault> {
        let Some(Encoding { file, mut ready }) = self.file else { return Ok(Ok(())) };
        ready.extend(block_in_place(|| file.finish()).map_err(|error| internal(&error))?);
        let whole = ready.chunks(PART_BYTES).count().saturating_sub(1);
        for (at, chunk) in ready.chunks(PART_BYTES).enumerate() {
            if let Err(ended) = hand_over(self.answers, part(chunk, at == whole), self.wait).await {
                return Ok(Err(ended));
            }
        }
        Ok(Ok(()))
    }
}

impl Encoding {
    /// Sends what is ready once there is `least` of it; what has not left stays ready.
    async fn send(&mut self, least: usize, answers: &Answers, wait: Duration) -> Result<(), Ended> {
        if self.ready.len() < least {
            return Ok(());
        }
        let (mut sent, mut went) = (0, Ok(()));
        for chunk in self.ready.chunks(PART_BYTES) {
            went = hand_over(answers, part(chunk, false), wait).await;
            if went.is_err() {
                break;
            }
            sent = chunk.len().saturating_add(sent);
        }
        self.ready.drain(..sent);
        went
    }
}

fn part(bytes: &[u8], last: bool) -> Answer {
    Answer::FilePart(FilePart { path: EXPORT_PATH.to_owned(), bytes: bytes.to_vec(), last, blake3: Vec::new() })
}
