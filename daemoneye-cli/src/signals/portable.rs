//! Elsewhere only Ctrl-C is told.

/// Never comes.
pub(crate) async fn terminated() {
    std::future::pending().await
}
