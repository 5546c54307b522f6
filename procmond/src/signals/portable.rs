//! Ctrl-C, where there are no Unix signals.

/// The handler.
pub(crate) struct Signals(());

impl Signals {
    /// Nothing to install ahead of time.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self(()))
    }

    /// Waits for Ctrl-C; without a console it never comes, and the agent ends the program over the bus.
    pub(crate) async fn first(self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}
