//! Linux: niceness belongs to a thread, and 0 names the calling one.

/// Five steps of `nice` take about two thirds of a thread's share when ingest wants the CPU, and nothing when it does not.
const NICENESS: i32 = 5;

/// Lowers the calling thread's priority. Failing costs only the fairness, so it is told and not fatal.
pub(crate) fn lower() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "query thread keeps its priority");
    }
}
