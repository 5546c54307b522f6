//! `data export`: the rows of one SELECT as pages, or as the parts of a Parquet file, without the caps of an ad-hoc query.

use std::time::Duration;

use daemoneye_engine::sql::{ParquetExport, QueryEngine, QueryLimits, Scratch};
use daemoneye_lib::proto::{
    DataExport, Fault, FilePart, Progress, QueryRequest, ResultPage, operator_response::Answer,
};
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use super::super::query::fault;
use super::super::{Answers, Operators, internal, say};
use super::{PART_BYTES, alone};

/// Months of events over a slow disk; whoever leaves ends it at once.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// Where an export spills, in the data directory.
const SCRATCH_DIR: &str = "scratch-export";
/// What the one file of an export is called between the two programs.
const EXPORT_PATH: &str = "export.parquet";

impl Operators {
    pub(in crate::operator) async fn data_export(
        &self,
        export: DataExport,
        answers: &Answers,
        cancel: CancellationToken,
    ) -> Result<(), Fault> {
        let _alone = alone(&self.whole_store)?;
        // Beside the engine of the queries, so that none of them waits for it; it ends with the export.
        let limits = self.limits.clone();
        // An engine empties its scratch directory when it begins; that of the queries is in use.
        let apart = |scratch: Scratch| Scratch { dir: scratch.dir.with_file_name(SCRATCH_DIR), ..scratch };
        let scratch = limits.scratch.clone().map(apart);
        let limits = QueryLimits { scratch, deadline: DEADLINE, row_cap: u64::MAX, concurrent: 1, ..limits };
        let engine = QueryEngine::new(self.store.clone(), limits, self.tables.clone());
        let engine = engine.map_err(|error| internal(&error))?;
        let DataExport { sql, params, parquet } = export;
        let request = QueryRequest { sql, params, ..QueryRequest::default() };
        let mut run = engine.query(request, cancel).await.map_err(|error| fault(&error))?;
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
