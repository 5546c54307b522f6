//! SIGTERM, and SIGHUP where it would end the program: `nohup` has it ignored, which a handler would undo.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM or SIGHUP, which from then on do not end the program by themselves.
pub(crate) async fn terminated() {
    tokio::select! {
        () = came(SignalKind::terminate()) => {}
        () = came(SignalKind::hangup()), if !is_hangup_ignored() => {}
    }
}

async fn came(kind: SignalKind) {
    // Where it cannot be taken over it ends the program as ever.
    let came = match signal(kind) {
        Ok(mut signal) => signal.recv().await,
        Err(_) => None,
    };
    if came.is_none() {
        std::future::pending::<()>().await;
    }
}

/// As this process was started; unknown is yes.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The first signal of the set.
    ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_none_or(|set| set & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::future::poll_fn;
    use std::pin::pin;

    #[tokio::test]
    async fn what_ends_programs_is_told_in_place_of_ending_this_one() {
        let ends = [Some(Signal::SIGTERM), (!is_hangup_ignored()).then_some(Signal::SIGHUP)];
        for end in ends.into_iter().flatten() {
            let mut terminated = pin!(terminated());
            // Looked at once it has taken the signal over; before, it would end this test.
            let is_there =
                poll_fn(|context| std::task::Poll::Ready(terminated.as_mut().poll(context).is_ready())).await;
            assert!(!is_there);
            kill(Pid::this(), end).unwrap();
            terminated.await;
        }
    }
}
