//! `serve --offline DIR`: the operator protocol over a copied data directory, also one that was copied from a live or dead
//! host. No file of the copy is changed.

use std::path::PathBuf;
use std::sync::Arc;

use daemoneye_engine::store::Store;
use daemoneye_eventbus::serve_operators;
use daemoneye_lib::exit::Exit;
use tokio_util::sync::CancellationToken;

use super::Operators;
use crate::error::AgentError;
use crate::platform::{self, GroupMay, Wish, Wishes};
use crate::settings::Settings;

/// Serves until a signal.
pub(crate) async fn run(settings: Settings, dir: PathBuf) -> Result<Exit, AgentError> {
    let dir = std::path::absolute(&dir).map_err(|source| AgentError::io("find", &dir, source))?;
    let mut wishes = Wishes::listen().map_err(|source| AgentError::io("listen for signals", "", source))?;
    let opened = tokio::task::spawn_blocking({
        let dir = dir.clone();
        move || Store::open_offline(&dir)
    });
    let store = opened.await.map_err(|source| AgentError::io("read", &dir, std::io::Error::other(source)))??;
    let runtime_dir = &settings.runtime_dir;
    platform::create_dir(runtime_dir, 0o750)
        .map_err(|source| AgentError::io("make the runtime directory", runtime_dir, source))?;
    platform::mask_new_files(GroupMay::Write);
    let socket = settings.cli_socket();
    let service = Operators::offline(Arc::new(store), settings)
        .map_err(|source| AgentError::io("start the query thread", "", source))?;
    let shutdown = CancellationToken::new();
    let serving = serve_operators(socket.clone(), Arc::new(service), shutdown.clone()).await?;
    tracing::info!(dir = %dir.display(), socket = %socket.display(), "serving a copied store");
    while wishes.next().await != Wish::Stop {}
    shutdown.cancel();
    serving.await.map_err(|source| AgentError::io("serve", &socket, std::io::Error::other(source)))?;
    Ok(Exit::Ok)
}
