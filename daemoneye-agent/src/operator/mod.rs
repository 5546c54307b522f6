//! What operators may ask, over `cli.sock`: one verb, one method. Works over a live worker and over a copied store; what only
//! a live agent can do is refused by name for a copied one.

mod audit;
mod data;
mod entries;
mod follow;
mod health;
mod keys;
mod losses;
pub(crate) mod offline;
mod query;
mod rules;
mod tools;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use daemoneye_engine::detect::rules::{Lists, kept_lists};
use daemoneye_engine::sql::{CollectorRow, QueryEngine, QueryLimits, READER_WAIT, Scratch, SystemTables};
use daemoneye_engine::store::{Store, StoreError};
use daemoneye_eventbus::operator::BoxFuture;
use daemoneye_eventbus::{Caller, OperatorService, Peer};
use daemoneye_lib::config::Config;
use daemoneye_lib::proto::{
    AlertShown, ConfigEntry, ConfigShown, Empty, Fault, FaultKind, Hello, OperatorRequest, OperatorResponse, Role,
    operator_request::Verb, operator_response::Answer,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::entries::Entries;
pub(crate) use self::health::known;
pub(crate) use self::losses::is_loss;
use crate::platform;
use crate::settings::Settings;
use crate::worker::Worker;

/// Members may change things.
const OPERATORS_GROUP: &str = "daemoneye-admin";
/// Members may look; collectors, agent and operators meet in it, so the sockets are given to it.
pub(crate) const VIEWERS_GROUP: &str = "daemoneye";

/// The way answers go back.
type Answers = mpsc::Sender<OperatorResponse>;

/// The service behind `cli.sock`.
pub(crate) struct Operators {
    store: Arc<Store>,
    engine: QueryEngine,
    refusals: Arc<Entries>,
    exports: Arc<Entries>,
    settings: Settings,
    /// None over a copied store.
    worker: Option<Arc<Worker>>,
    /// One request at a time that reads or writes everything.
    whole_store: Arc<Semaphore>,
    /// How long such a request waits for a caller who takes nothing.
    reader_wait: Duration,
}

/// What is known beside a copied store: nothing runs.
struct Copied(Arc<Store>);

impl SystemTables for Copied {
    fn is_live(&self) -> bool {
        false
    }

    fn collectors(&self) -> Vec<CollectorRow> {
        Vec::new()
    }

    fn health(&self) -> Option<serde_json::Value> {
        known(&self.0, None)
    }

    fn lists(&self) -> Lists {
        kept_lists(&self.0).unwrap_or_default()
    }
}

impl Operators {
    /// Over a running worker.
    pub(crate) fn live(worker: Arc<Worker>) -> std::io::Result<Self> {
        let tables = Arc::clone(&worker);
        let scratch = worker.store.dir().join("scratch");
        Self::over(Arc::clone(&worker.store), worker.settings.clone(), scratch, tables, Some(worker))
    }

    /// Over a copied store, beside which nothing is written: what queries spill lies with the socket.
    pub(crate) fn offline(store: Arc<Store>, settings: Settings) -> std::io::Result<Self> {
        let tables = Arc::new(Copied(Arc::clone(&store)));
        let scratch = offline::scratch(&settings.runtime_dir);
        Self::over(store, settings, scratch, tables, None)
    }

    fn over(
        store: Arc<Store>,
        settings: Settings,
        scratch: PathBuf,
        tables: Arc<dyn SystemTables>,
        worker: Option<Arc<Worker>>,
    ) -> std::io::Result<Self> {
        let limits = QueryLimits {
            memory_bytes: settings.query.memory_bytes,
            scratch: Some(Scratch { dir: scratch, quota_bytes: settings.query.scratch_bytes }),
            deadline: settings.query.deadline,
            row_cap: settings.query.row_cap,
            concurrent: settings.query.concurrent,
            ..QueryLimits::default()
        };
        let engine = QueryEngine::new(Arc::clone(&store), limits, tables)?;
        let whole_store = Arc::new(Semaphore::new(1));
        let refusals = Entries::new("query-refused", "refused_since_without_entry");
        let exports = Entries::new("data-export", "exports_since_without_entry");
        Ok(Self { engine, refusals, exports, store, settings, worker, whole_store, reader_wait: READER_WAIT })
    }

    fn live_only(&self, what: &str) -> Result<&Arc<Worker>, Fault> {
        self.worker.as_ref().ok_or_else(|| {
            Fault::new(FaultKind::Unavailable, format!("{what} needs a running agent: this is a copied store"))
        })
    }

    async fn answer(
        &self,
        caller: &Caller,
        request: OperatorRequest,
        answers: &Answers,
        cancel: CancellationToken,
    ) -> Result<(), Fault> {
        let answer = match request.verb {
            Some(Verb::Query(query)) => return self.query(caller, query, answers, cancel).await,
            Some(Verb::EventsFollow(follow)) => return self.follow(caller, &follow, answers, cancel).await,
            Some(Verb::DataFsck(_)) => return self.data_fsck(answers, cancel).await,
            Some(Verb::AuditCompare(_)) => return self.audit_compare(answers, cancel).await,
            Some(Verb::AuditLeaves(asked)) => return self.audit_leaves(asked, answers, cancel).await,
            Some(Verb::DataVacuum(_)) => return self.data_vacuum(caller, answers, cancel).await,
            Some(Verb::DataBackup(_)) => return self.data_backup(caller, answers).await,
            Some(Verb::DataExport(export)) => return self.data_export(caller, export, answers, cancel).await,
            Some(Verb::DataStats(_)) => Answer::Data(self.data_stats().await?),
            Some(Verb::DataRetention(_)) => Answer::Data(self.data_retention().await?),
            // The transport cancels the running request itself; what arrives here was over already.
            Some(Verb::Cancel(_)) => Answer::Done(Empty {}),
            Some(Verb::Health(Empty {})) => Answer::Health(self.health().await),
            Some(Verb::RulesCheck(check)) => Answer::RulesChecked(self.rules_check(check).await?),
            Some(Verb::RulesBacktest(backtest)) => return self.rules_backtest(backtest, answers, cancel).await,
            Some(Verb::RulesExport(_)) => return self.rules_export(answers).await,
            Some(Verb::RulesExplain(explain)) => Answer::Data(self.rules_explain(explain, cancel).await?),
            Some(Verb::RulesReload(Empty {})) => Answer::RulesReloaded(self.rules_reload(caller).await?),
            Some(Verb::AlertShow(show)) => Answer::Alert(self.alert(show.id).await?),
            Some(Verb::AuditAcceptLedger(Empty {})) => Answer::Data(self.audit_accept_ledger(caller).await?),
            Some(Verb::AuditRotateKey(Empty {})) => Answer::AuditKey(self.audit_rotate_key(caller).await?),
            Some(Verb::ConfigShow(_)) => Answer::Config(self.config()),
            None => {
                return Err(Fault::new(FaultKind::InvalidRequest, "the request names nothing that this build knows"));
            }
        };
        say(answers, answer).await;
        Ok(())
    }

    async fn alert(&self, id: String) -> Result<AlertShown, Fault> {
        let parsed: Uuid = id.parse().map_err(|_| {
            Fault::new(FaultKind::InvalidRequest, format!("{id:?} is no alert id: see `daemoneye-cli alerts list`"))
        })?;
        let found = self.blocking(move |store| store.alert(parsed)).await?;
        let alert = found.ok_or_else(|| Fault::new(FaultKind::NotFound, format!("no alert has the id {id}")))?;
        let json = serde_json::to_string(&alert).map_err(|error| internal(&error))?;
        let as_raised = self.blocking(move |store| store.alert_as_raised(parsed)).await?.unwrap_or_default();
        let text = self.blocking(move |store| store.rule_text(alert.rule_id, alert.rule_version)).await?;
        let rule = text.filter(|text| text.hash == alert.rule_hash).map(|text| text.hashed).unwrap_or_default();
        Ok(AlertShown { json, as_raised, rule })
    }

    fn config(&self) -> ConfigShown {
        let of = |config: &Config| {
            let component = config.component().name;
            let entries = config.entries().into_iter();
            let shown = entries.map(|entry| ConfigEntry {
                component: component.to_owned(),
                key: entry.key.to_owned(),
                is_default: entry.is_default(),
                value: entry.value,
                origin: entry.origin,
                doc: entry.doc.to_owned(),
            });
            shown.collect::<Vec<_>>()
        };
        // Nothing runs over a copied store that procmond's settings could be those of.
        let procmond = self.worker.as_ref().and_then(|worker| worker.settings.procmond.config.as_ref());
        ConfigShown { entries: [&self.settings.config].into_iter().chain(procmond).flat_map(of).collect() }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Fault> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.map_err(|error| internal(&error))?.map_err(|error| failed(&error))
    }

    fn dirs(&self) -> (PathBuf, PathBuf) {
        (self.store.dir().to_owned(), self.settings.runtime_dir.clone())
    }
}

/// Sends one answer; a caller who has left needs none.
async fn say(answers: &Answers, answer: Answer) -> bool {
    answers.send(OperatorResponse { answer: Some(answer) }).await.is_ok()
}

/// The details stay in the agent's log: they may name paths that the caller cannot see.
fn internal(error: &dyn std::fmt::Display) -> Fault {
    tracing::warn!(%error, "an operator's request failed");
    Fault::new(FaultKind::Internal, "the agent could not answer: see its log")
}

/// [`internal`] of the store, with what the system said where it said something: whoever asks can free a full disk, and no path
/// stands in that.
fn failed(error: &StoreError) -> Fault {
    if let StoreError::LimitRoom { needed, free, .. } = error {
        let text = format!(
            "merging needs {needed} bytes on the disk and {free} are free; free disk space, or lower store.retention_bytes"
        );
        return Fault::new(FaultKind::ResourceExhausted, text);
    }
    let fault = internal(error);
    let text = error.to_string();
    let code = text.split_once("(os error ").and_then(|(_, rest)| rest.split_once(')')?.0.parse().ok());
    let Some(code) = code else { return fault };
    let said = std::io::Error::from_raw_os_error(code);
    Fault::new(FaultKind::Internal, format!("the agent could not answer: {said}; its log says where"))
}

/// Who a peer is for the agent: root and its own user operate, groups decide about the others.
fn role_of(peer: &Peer, own_uid: u32, belongs: impl Fn(&Peer, &str) -> bool) -> Option<Role> {
    if peer.uid == 0 || peer.uid == own_uid || belongs(peer, OPERATORS_GROUP) {
        Some(Role::Operator)
    } else {
        belongs(peer, VIEWERS_GROUP).then_some(Role::Viewer)
    }
}

impl OperatorService for Operators {
    fn admit(&self, peer: &Peer, _hello: &Hello) -> Result<Role, Fault> {
        let belongs = |peer: &Peer, group: &str| platform::is_member(peer.uid, peer.gid, group);
        role_of(peer, platform::own_uid(), belongs).ok_or_else(|| {
            let message = format!("your user is in neither {VIEWERS_GROUP} nor {OPERATORS_GROUP}: ask to be added");
            if let Some(worker) = &self.worker {
                worker.refused(peer, &message);
            }
            Fault::new(FaultKind::Forbidden, message)
        })
    }

    fn handle(
        self: Arc<Self>,
        caller: Caller,
        request: OperatorRequest,
        answers: Answers,
        cancel: CancellationToken,
    ) -> BoxFuture<Result<(), Fault>> {
        Box::pin(async move { self.answer(&caller, request, &answers, cancel).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(uid: u32, groups: &[&str]) -> Option<Role> {
        let peer = Peer { uid, gid: 4_000_000, pid: None };
        role_of(&peer, 990, |asked, group| asked.uid == uid && groups.contains(&group))
    }

    #[test]
    fn strangers_are_neither_operators_nor_viewers() {
        assert_eq!(role(3_999_999, &[]), None);
        assert_eq!(role(3_999_999, &["wheel", "daemoneye-other", "daemoneye2"]), None);
        let peer = Peer { uid: 3_999_999, gid: 4_000_000, pid: None };
        assert_eq!(role_of(&peer, 990, |peer, group| platform::is_member(peer.uid, peer.gid, group)), None);
    }

    #[test]
    fn members_view_admins_root_and_the_agents_own_user_change() {
        assert_eq!(role(1000, &["daemoneye"]), Some(Role::Viewer));
        assert_eq!(role(1000, &["daemoneye-admin"]), Some(Role::Operator));
        assert_eq!(role(1000, &["daemoneye", "daemoneye-admin"]), Some(Role::Operator));
        assert_eq!(role(0, &[]), Some(Role::Operator));
        assert_eq!(role(990, &[]), Some(Role::Operator));
    }

    #[test]
    fn a_full_disk_is_told_to_whoever_asks_and_no_path_is() {
        let path = std::path::PathBuf::from("/var/lib/daemoneye/segments/x.parquet");
        let full =
            StoreError::Io { action: "write", path: path.clone(), source: std::io::Error::from_raw_os_error(28) };
        let room = StoreError::LimitRoom { dir: path.clone(), needed: 2_000, free: 1_000 };
        for (error, words) in [(full, "No space left on device"), (room, "2000 bytes on the disk and 1000 are free")] {
            let fault = failed(&error);
            assert!(fault.message.contains(words) && !fault.message.contains("/var"), "{}", fault.message);
        }
        let other = failed(&StoreError::Io { action: "read", path, source: std::io::Error::other("in /var") });
        assert_eq!(other.message, "the agent could not answer: see its log");
    }
}
