//! `data vacuum`: merges segments and gives room back now, and tells how far it is.

use std::pin::pin;
use std::time::Duration;

use daemoneye_engine::store::Store;
use daemoneye_eventbus::Caller;
use daemoneye_lib::proto::{Fault, Progress, operator_response::Answer};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::super::{Answers, Operators, say};
use super::reader::show;
use super::{actor, alone, shown};

/// How often it looks how far the merge is: what a person sees as moving.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Operators {
    pub(in crate::operator) async fn data_vacuum(
        &self,
        caller: &Caller,
        answers: &Answers,
        cancel: CancellationToken,
    ) -> Result<(), Fault> {
        let worker = self.live_only("data vacuum")?;
        let alone = alone(&self.whole_store)?;
        // Before it begins: one that is interrupted has changed files too.
        worker.audit(actor(caller), "data-vacuum", json!({})).await;
        let mut work = pin!(self.blocking(move |store| store.vacuum(store.believed_us(), &cancel)));
        let done = loop {
            tokio::select! {
                done = &mut work => break done?,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Some(merge) = self.blocking(Store::compaction_state).await?.running {
                show(answers, Progress { done: merge.rows_done, total: merge.rows });
            }
        };
        drop(alone);
        say(answers, Answer::Data(shown(&json!(done), done.complete)?)).await;
        Ok(())
    }
}
