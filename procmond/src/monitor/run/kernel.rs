//! The source of the kernel within a run: taken from whoever had it, listened to, replaced when it dies or falls silent, and left to the
//! next run when this one is cut off.

use collector_core::SourceError;

use super::super::reader::Reader;
use super::super::watch::{lock, now_us};
use super::{FENCE, Look, Run};
use crate::kernel::KernelSource;
use crate::tracker::Input;

/// Snapshots that find starts while nothing at all is announced, before the source is given up: one may be an accident.
pub(in crate::monitor) const SILENT_LOOKS: u32 = 2;

/// Whether the source announces anything. One that is detached, or told by another process to be quiet, looks like an idle host;
/// starts that only a snapshot finds tell the two apart.
pub(super) struct Pulse {
    /// Since the last snapshot was settled.
    pub(super) heard: bool,
    /// The last announcement, µs since the Unix epoch.
    pub(super) heard_us: i64,
    /// Snapshots since then that found starts.
    silent: u32,
}

impl Pulse {
    pub(super) const fn new(at_us: i64) -> Self {
        Self { heard: false, heard_us: at_us, silent: 0 }
    }

    /// A snapshot is settled; returns whether the source is taken for dead.
    pub(super) fn settle(&mut self, missed: u64) -> bool {
        let heard = std::mem::take(&mut self.heard);
        // One that found nothing proves nothing.
        self.silent = if heard { 0 } else { self.silent.saturating_add(u32::from(missed > 0)) };
        self.silent >= SILENT_LOOKS
    }
}

impl Run<'_> {
    /// The source of the kernel, if there is one; a run that was cut off has left it to its thread.
    pub(super) async fn take_kernel(&self) -> Option<Box<dyn KernelSource>> {
        let (kernel, held) = {
            let mut station = lock(&self.monitor.station);
            (station.kernel.take(), station.held.take())
        };
        let Some(held) = held else { return kernel };
        let given_back = tokio::task::spawn_blocking(move || held.join().ok());
        let kernel = tokio::time::timeout(FENCE, given_back).await.ok()?.ok()??;
        let detail = "the run before was cut off; what it had heard and not written is lost".to_owned();
        let since_us = lock(&self.monitor.station).idle_since_us;
        lock(&self.monitor.watch).tell_gap("kernel_lost", since_us, None, detail);
        Some(kernel)
    }

    pub(super) fn listen(&mut self, kernel: Box<dyn KernelSource>, idle_since_us: i64) -> Result<(), SourceError> {
        // Told already, when it has been listened to before.
        self.losses.total = kernel.lost();
        let reader = Reader::start(kernel, idle_since_us)
            .map_err(|error| SourceError::Failed(format!("no thread to listen: {error}")))?;
        if let Some(note) = &reader.note {
            let mut seen = lock(&self.monitor.seen);
            if !seen.notes.contains(note) {
                seen.notes.push(note.clone());
            }
        }
        self.reader = Some(reader);
        Ok(())
    }

    /// The source of the kernel has died: the next best takes its place, or snapshots alone go on. What happened since `since_us` may be
    /// unseen.
    pub(super) async fn fall_back(&mut self, why: String, since_us: i64) -> Result<(), SourceError> {
        if let Some(reader) = self.reader.take() {
            let mut rest = Vec::new();
            drop(reader.end(&mut rest).await);
            self.absorb(&mut rest);
        }
        self.tell_losses(true);
        let mut notes = vec![why.clone()];
        let found = loop {
            let (open, boot_id) = {
                let mut station = lock(&self.monitor.station);
                let open = (!station.next.is_empty()).then(|| station.next.remove(0));
                (open, station.boot_id.clone())
            };
            let Some(open) = open else { break None };
            match tokio::task::spawn_blocking(move || open(&boot_id)).await {
                Ok(Ok(kernel)) => break Some(kernel),
                Ok(Err(error)) => notes.push(error.to_string()),
                Err(error) => notes.push(error.to_string()),
            }
        };
        let announcer = found.as_ref().map(|kernel| kernel.name());
        let now = announcer.unwrap_or(self.monitor.snapshots);
        tracing::error!(why, now, "the source of the kernel is gone; another takes its place");
        {
            let mut seen = lock(&self.monitor.seen);
            let detail = format!("{} is gone, {now} has taken its place: {why}", seen.source);
            let mut watch = lock(&self.monitor.watch);
            watch.listen_to(announcer);
            watch.tell_gap("source_fallback", since_us, None, detail);
            seen.notes = found.as_ref().map_or_else(Vec::new, |kernel| kernel.notes());
            seen.notes.extend(notes);
            seen.kernel = announcer.is_some();
            seen.exec_filename = found.as_ref().is_some_and(|kernel| kernel.tells_exec_filename());
            seen.source = now;
            seen.reason = "its better has failed".to_owned();
            if matches!(self.look, Look::Fenced { .. }) {
                watch.apply(Input::End { complete: false });
                self.look = Look::Settling;
            }
        }
        if let Some(kernel) = found {
            self.listen(kernel, now_us())?;
        }
        self.pulse = Pulse::new(now_us());
        self.looked = None;
        Ok(())
    }
}

impl Drop for Run<'_> {
    /// Cut off, or failed: the next run takes the source from its thread.
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            let mut station = lock(&self.monitor.station);
            station.idle_since_us = now_us();
            station.held = reader.cut_off();
        }
    }
}
