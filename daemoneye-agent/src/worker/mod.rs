//! The worker: broker, store, rules, alerts and answers.
//!
//! Its life is a chain of types in [`stages`], each made from the one before. What ends it is one [`End`]; everything that
//! follows is bounded, so that the parent never has to guess.

mod audit;
mod authority;
mod banner;
mod followers;
mod greeting;
pub(crate) mod host;
mod ingest;
mod integrity;
mod joined;
mod ledgers;
mod notices;
mod phase;
mod pushdown;
mod refusals;
mod roster;
mod rounds;
mod rule_life;
mod rule_marks;
pub(crate) mod rules;
mod sealing;
mod stages;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use daemoneye_engine::detect::rules::Lists;
use daemoneye_engine::sql::{CollectorRow, RuleLife, SystemTables};
use daemoneye_engine::store::{Store, StoreError};
use daemoneye_eventbus::Broker;
use daemoneye_lib::jail::Report;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use self::followers::Followers;
pub(crate) use self::ingest::Counters;
use self::integrity::Troubles;
pub(crate) use self::integrity::{FALL_REMEDY, LEDGER_REMEDY};
use self::ledgers::Unmet;
pub(crate) use self::phase::Phase;
pub(crate) use self::pushdown::Pushdown;
use self::refusals::Refusals;
pub(crate) use self::roster::{Collector, Roster};
pub(crate) use self::rule_life::{Blinded, Summary, unfilled};
use self::rules::{Reloaded, Rules};
pub(crate) use self::stages::{confine, run};
use crate::error::AgentError;
use crate::link::{ChildState, ToParent};
use crate::operator;
use crate::settings::Settings;
use crate::sinks::delivery::SinkState;

/// Why the worker ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The parent asked.
    Asked,
    /// Something cannot go on.
    Failed(AgentError),
    /// The parent is gone.
    Orphaned,
}

/// What every part of the worker shares.
pub(crate) struct Worker {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<Store>,
    pub(crate) rules: Rules,
    pub(crate) roster: Roster,
    pub(crate) followers: Followers,
    pub(crate) broker: Broker,
    pub(crate) counters: Counters,
    /// When the host's clock was judged last.
    clock_read: Mutex<Instant>,
    pub(crate) sinks: Vec<Arc<SinkState>>,
    pub(crate) started: Instant,
    /// What the start could not write for want of room is still to be written.
    late: AtomicBool,
    /// Nobody collected for a while, and the rules have not been told.
    outage: AtomicBool,
    /// Held while collectors are told what the rules need.
    pushing: tokio::sync::Mutex<()>,
    /// Held while entries for the ledger are handed over: of two at once each would take the other's ids for those of another store.
    handing: tokio::sync::Mutex<()>,
    /// What the kernel holds this process to; set once everything listens.
    pub(crate) jail: OnceLock<Report>,
    pub(crate) phase: watch::Sender<Phase>,
    /// The parent's pid and its children, as it told last.
    pub(crate) children: Mutex<(u32, Vec<ChildState>)>,
    /// What holds the parent, as it told last.
    pub(crate) parent_jail: Mutex<Report>,
    /// Grows with each alert that entered the outbox.
    alerts: watch::Sender<u64>,
    refusals: Mutex<Refusals>,
    /// Gaps that were not said yet.
    gaps: Mutex<Refusals>,
    /// What was raised of the collectors' ledgers.
    ledger_troubles: Troubles,
    /// Whose ledgers are still to be held against what they were.
    unmet: Unmet,
    parent: mpsc::Sender<ToParent>,
    ending: mpsc::Sender<End>,
    shutdown: CancellationToken,
}

impl Worker {
    /// Runs store work where it may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let worker = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&worker)).await.ok()
    }

    /// Queues a word for the parent; one that does not fit is dropped, it was the hundredth of its kind.
    fn tell_parent(&self, word: ToParent) {
        if self.parent.try_send(word).is_err() {
            tracing::debug!("the parent does not listen");
        }
    }

    /// Grows when alerts have entered the outbox.
    pub(crate) fn alert_news(&self) -> watch::Receiver<u64> {
        self.alerts.subscribe()
    }

    /// Fires when the worker ends.
    pub(crate) fn shutdown_token(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Ends the worker; the first reason counts.
    fn end(&self, end: End) {
        if let Err(mpsc::error::TrySendError::Full(end) | mpsc::error::TrySendError::Closed(end)) =
            self.ending.try_send(end)
        {
            tracing::debug!(?end, "is ending already");
        }
    }

    /// Reads the rules again; the change is audited under `actor`.
    pub(crate) async fn reload_rules(self: &Arc<Self>, actor: String) -> Result<Reloaded, StoreError> {
        let reloaded = self.blocking(|worker| {
            let reloaded = worker.rules.reload(&worker.store);
            rule_life::look_again(worker);
            reloaded
        });
        let reloaded = reloaded.await;
        let Some(reloaded) = reloaded else { return Ok(Reloaded::default()) };
        let reloaded = reloaded?;
        for problem in &reloaded.problems {
            tracing::warn!("rule not taken: {problem}");
        }
        if reloaded.is_change() {
            pushdown::push(self).await;
            tracing::info!(
                rules = reloaded.loaded,
                added = reloaded.added.len(),
                changed = reloaded.changed.len(),
                removed = reloaded.removed.len(),
                exceptions_added = reloaded.exceptions.len(),
                exceptions_removed = reloaded.exceptions_gone.len(),
                "rules in force"
            );
            // The store audits each rule; this says who asked and what was not taken.
            self.audit(actor.clone(), "rules-reload", audit::rules(&reloaded)).await;
        } else {
            tracing::info!(
                rules = reloaded.loaded,
                problems = reloaded.problems.len(),
                "rules read again, nothing has changed"
            );
        }
        if reloaded.changes_exceptions() {
            self.audit(actor, "rule-exceptions", audit::exceptions(&reloaded)).await;
        }
        Ok(reloaded)
    }

    /// Loads the rules and tells the ledger of the start, and of the jail where it is known already.
    async fn begin(self: &Arc<Self>) -> Result<(), StoreError> {
        self.reload_rules("agent".to_owned()).await?;
        let told = self.blocking(|worker| {
            worker.store.audit_push("agent", "start", &audit::start(&worker.settings))?;
            let jail = worker.jail.get().map(audit::sandbox);
            jail.map_or(Ok(None), |jail| worker.store.audit_push("agent", "sandbox", &jail))
        });
        told.await.transpose()?;
        self.late.store(false, Ordering::SeqCst);
        // A collector that was rehearsed meanwhile has been told nothing; ingest waits for none.
        let worker = Arc::clone(self);
        tokio::spawn(async move { pushdown::push(&worker).await });
        Ok(())
    }

    /// Whether ingest has to do that first.
    fn is_late(&self) -> bool {
        self.late.load(Ordering::SeqCst)
    }

    /// Puts an entry into the audit outbox.
    pub(crate) async fn audit(self: &Arc<Self>, actor: String, action: &'static str, payload: serde_json::Value) {
        self.blocking(move |worker| audit::push(&worker.store, &actor, action, &payload)).await;
    }
}

impl SystemTables for Worker {
    fn collectors(&self) -> Vec<CollectorRow> {
        let (_, children) = self.children.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let restarts = |id: &str| children.iter().find(|child| child.name == id).map_or(0, |child| child.restarts);
        self.roster
            .all()
            .into_iter()
            .map(|(id, collector)| roster::row(id.clone(), &collector, restarts(&id)))
            .chain(self.roster.missing())
            .collect()
    }

    fn health(&self) -> Option<serde_json::Value> {
        operator::known(&self.store, Some(self))
    }

    fn lists(&self) -> Lists {
        self.rules.read(|_, lists, _| lists.clone())
    }

    fn rule_life(&self) -> RuleLife {
        rule_life::of(self)
    }
}
