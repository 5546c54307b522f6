//! `serve --offline DIR`: the operator protocol over a copied data directory, also one that was copied from a live or dead
//! host. No file of the copy is changed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use daemoneye_engine::store::{Store, StoreError};
use daemoneye_eventbus::serve_operators;
use daemoneye_lib::exit::Exit;
use daemoneye_lib::jail::Dropped;
use tokio_util::sync::CancellationToken;

use super::Operators;
use crate::error::AgentError;
use crate::jail;
use crate::platform::{self, GroupMay, Wish, Wishes};
use crate::settings::Settings;

/// What queries spill, for its owner alone.
pub(super) fn scratch(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("scratch")
}

/// What serving needs, and nothing else, from here on.
pub(crate) fn confine(settings: &Settings, dir: &Path, transient: bool) -> Result<Dropped, AgentError> {
    find(dir).map_err(|source| AgentError::CopiedStore { dir: dir.to_owned(), source })?;
    // A grant needs what it is for.
    let runtime = &settings.runtime_dir;
    let scratch = scratch(runtime);
    for (made, mode) in [(runtime, 0o750), (&scratch, 0o700)] {
        platform::create_dir(made, mode).map_err(|source| AgentError::Directory {
            dir: made.clone(),
            flag: "--runtime-dir",
            source,
        })?;
    }
    Ok(jail::enter(&jail::offline(settings, (dir, &scratch), transient), &settings.sandbox_required)?)
}

/// Before anything is made for a directory that is no data directory.
fn find(dir: &Path) -> std::io::Result<()> {
    std::fs::read_dir(dir)?;
    if ["state.redb", "segments", "wal"].iter().any(|name| dir.join(name).exists()) {
        return Ok(());
    }
    Err(std::io::Error::new(ErrorKind::NotFound, "there is neither state.redb nor wal in it"))
}

/// Serves until a signal; a `transient` one also until standard input ends, and removes its runtime directory: whoever
/// started it may have been killed.
pub(crate) async fn run(settings: Settings, jail: Dropped, dir: &Path, transient: bool) -> Result<Exit, AgentError> {
    let runtime_dir = settings.runtime_dir.clone();
    let served = serve(settings, jail, dir, transient).await;
    // One that could not serve may have met somebody else's directory, and its starter reads the log in it.
    if transient && served.is_ok() {
        remove(&runtime_dir);
    }
    served
}

/// Gone already when the other side was quicker.
fn remove(runtime_dir: &Path) {
    match std::fs::remove_dir_all(runtime_dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(dir = %runtime_dir.display(), %error, "the runtime directory stays behind");
        }
        _ => {}
    }
}

async fn serve(settings: Settings, jail: Dropped, dir: &Path, transient: bool) -> Result<Exit, AgentError> {
    let dir = std::path::absolute(dir).map_err(|source| AgentError::io("find", dir, source))?;
    let mut wishes = Wishes::listen().map_err(|source| AgentError::io("listen for signals", "", source))?;
    let mut ended = pin!(input_ended(transient));
    let opened = tokio::task::spawn_blocking({
        let dir = dir.clone();
        move || Store::open_offline(&dir)
    });
    // A large log takes a while, and a disk that does not answer for ever.
    let opened = tokio::select! {
        opened = opened => opened,
        () = async { while wishes.next().await != Wish::Stop {} } => return Ok(Exit::Ok),
        () = &mut ended => return Ok(Exit::Ok),
    };
    let opened = opened.map_err(|source| AgentError::io("read", &dir, std::io::Error::other(source)))?;
    let store = opened.map_err(|error| match error {
        StoreError::Unreadable { path, source } => AgentError::CopiedStore { dir: path, source },
        other => other.into(),
    })?;
    store.ledger_lies_in(settings.procmond.audit_dir.clone().unwrap_or_else(|| store.ledger_dir()));
    platform::mask_new_files(GroupMay::Write);
    let socket = settings.cli_socket();
    // Its queries may have spilled beside the socket, and what lies there is removed at a start.
    if platform::answers(&socket) {
        let taken =
            std::io::Error::new(ErrorKind::AddrInUse, "another agent serves there; choose another --runtime-dir");
        return Err(AgentError::io("serve", &socket, taken));
    }
    let service = Operators::offline(Arc::new(store), settings)
        .map_err(|source| AgentError::io("start the query thread", "", source))?;
    let shutdown = CancellationToken::new();
    let serving = serve_operators(socket.clone(), Arc::new(service), shutdown.clone()).await?;
    platform::warm_up();
    for note in jail::close(jail)?.notes() {
        tracing::debug!("{note}");
    }
    tracing::info!(dir = %dir.display(), socket = %socket.display(), "serving a copied store");
    tokio::select! {
        () = async { while wishes.next().await != Wish::Stop {} } => {}
        () = &mut ended => {}
    }
    shutdown.cancel();
    serving.await.map_err(|source| AgentError::io("serve", &socket, std::io::Error::other(source)))?;
    Ok(Exit::Ok)
}

/// Ends with standard input, or never. On a thread of its own, because a read that waits cannot be cancelled.
async fn input_ended(watched: bool) {
    let (ended, told) = tokio::sync::oneshot::channel::<()>();
    if !watched {
        return std::future::pending().await;
    }
    std::thread::spawn(move || {
        // Whatever comes is of no interest, and an error is an end as well.
        drop(std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
        drop(ended);
    });
    // The only word that comes is that the sender is gone.
    drop(told.await);
}
