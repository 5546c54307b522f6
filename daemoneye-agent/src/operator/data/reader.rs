//! A caller who has stopped reading: what holds files, a slot or the turn of the whole store waits for it only so long.

use std::time::Duration;

use daemoneye_lib::proto::{Fault, FaultKind, OperatorResponse, Progress, operator_response::Answer};
use tokio::sync::mpsc::{Permit, error::TrySendError};
use tokio::time::timeout;

use super::super::Answers;

/// Why nothing more can be handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The caller has hung up.
    Left,
    /// The caller takes nothing.
    Stopped,
}

/// Room for one answer. What is to go there is not lost when none comes.
pub(super) async fn room(answers: &Answers, wait: Duration) -> Result<Permit<'_, OperatorResponse>, Ended> {
    match timeout(wait, answers.reserve()).await {
        Ok(room) => room.map_err(|_| Ended::Left),
        Err(_) => Err(Ended::Stopped),
    }
}

/// Sends one answer within `wait`.
pub(super) async fn hand_over(answers: &Answers, answer: Answer, wait: Duration) -> Result<(), Ended> {
    room(answers, wait).await.map(|room| room.send(OperatorResponse { answer: Some(answer) }))
}

/// Tells how far something is; left out where there is no room, because the next one tells more. False: the caller has left.
pub(in crate::operator) fn show(answers: &Answers, progress: Progress) -> bool {
    let told = answers.try_send(OperatorResponse { answer: Some(Answer::Progress(progress)) });
    !matches!(told, Err(TrySendError::Closed(_)))
}

/// What a caller reads who comes back.
pub(super) fn stopped(what: &str, waited: Duration) -> Fault {
    let text = format!("reader: it took nothing of the {what} for {} s, so it was ended: ask again", waited.as_secs());
    Fault::new(FaultKind::Timeout, text)
}
