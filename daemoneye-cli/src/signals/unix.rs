//! SIGTERM. SIGHUP is left as it is: `nohup` has it ignored, and a handler would undo that.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM, which from then on does not end the program by itself.
pub(crate) async fn terminated() {
    // Where it cannot be taken over it ends the program as ever.
    let came = match signal(SignalKind::terminate()) {
        Ok(mut signal) => signal.recv().await,
        Err(_) => None,
    };
    if came.is_none() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::future::poll_fn;
    use std::pin::pin;

    #[tokio::test]
    async fn sigterm_is_told_in_place_of_ending_the_program() {
        let mut terminated = pin!(terminated());
        // Looked at once it has taken the signal over; before, it would end this test.
        let is_there = poll_fn(|context| std::task::Poll::Ready(terminated.as_mut().poll(context).is_ready())).await;
        assert!(!is_there);
        kill(Pid::this(), Signal::SIGTERM).unwrap();
        terminated.await;
    }
}
