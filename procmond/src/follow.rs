//! Events as JSON lines on standard output.
//!
//! A reader that stops reading must not stop the collection: lines wait in a bounded queue, what does not fit is counted
//! and told on standard error at the end, and everything is in the log anyway.

use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use daemoneye_lib::event_json::{EventRow, Origin};
use daemoneye_lib::proto::{ProcessEvent, Record};
use prost::Message;
use tokio_util::sync::CancellationToken;

use crate::monitor::is_process_topic;

/// Lines that may wait: the baseline of a host with 16,000 processes, about 16 MiB.
const QUEUE_LINES: usize = 16 * 1024;

/// Prints what it is given, from a thread of its own.
pub struct Follow {
    queue: Mutex<Option<SyncSender<String>>>,
    collector: String,
    shed: AtomicU64,
}

impl Follow {
    /// Prints to `out`; a closed pipe fires `closed`, because nobody follows any more. The second value is fired when
    /// everything has been printed after [`Follow::finish`].
    pub fn start(
        collector: &str,
        out: impl Write + Send + 'static,
        closed: CancellationToken,
    ) -> std::io::Result<(Arc<Self>, CancellationToken)> {
        let (queue, lines) = sync_channel(QUEUE_LINES);
        let printed = CancellationToken::new();
        let done = printed.clone().drop_guard();
        std::thread::Builder::new().name("follow".to_owned()).spawn(move || {
            if print(out, &lines).is_err() {
                closed.cancel();
            }
            drop(done);
        })?;
        let follow = Self { queue: Mutex::new(Some(queue)), collector: collector.to_owned(), shed: AtomicU64::new(0) };
        Ok((Arc::new(follow), printed))
    }

    /// Takes one record of the log; other topics than process events are not lines.
    pub fn take(&self, record: &Record) {
        if !is_process_topic(&record.topic) {
            return;
        }
        let origin = Origin { collector: &self.collector, sequence: record.sequence };
        let line = ProcessEvent::decode(record.payload.as_ref())
            .ok()
            .and_then(|event| serde_json::to_string(&EventRow::new(&event, origin)).ok());
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(line), Some(queue)) = (line, queue.as_ref())
            && matches!(queue.try_send(line), Err(TrySendError::Full(_)))
        {
            self.shed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// No more lines come. Returns how many found no room.
    pub fn finish(&self) -> u64 {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.shed.load(Ordering::Relaxed)
    }
}

fn print(out: impl Write, lines: &Receiver<String>) -> std::io::Result<()> {
    let mut out = BufWriter::new(out);
    while let Ok(line) = lines.recv() {
        writeln!(out, "{line}")?;
        // What is there already goes out with it in one write.
        for more in lines.try_iter() {
            writeln!(out, "{more}")?;
        }
        out.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_lib::proto::{ProcessRecord, Sequence};
    use std::io;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    fn record(topic: &str) -> Record {
        let process = Some(ProcessRecord { pid: 7, name: "a".into(), ..Default::default() });
        let payload = ProcessEvent { process, ..Default::default() }.encode_to_vec().into();
        Record { sequence: Some(Sequence::new(1, 2)), topic: topic.into(), payload, ..Default::default() }
    }

    #[tokio::test]
    async fn process_events_become_lines_and_other_records_do_not() {
        let sink = Sink::default();
        let (follow, printed) = Follow::start("procmond", sink.clone(), CancellationToken::new()).unwrap();
        follow.take(&record("events.process.start"));
        follow.take(&record("events.collector.procmond"));
        assert_eq!(follow.finish(), 0);
        printed.cancelled().await;
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains(r#""pid":7,"name":"a""#) && text.contains(r#""seq":2"#), "{text}");
    }

    #[tokio::test]
    async fn a_closed_pipe_is_told_to_the_program() {
        let closed = CancellationToken::new();
        let (follow, _printed) = Follow::start("procmond", Closed, closed.clone()).unwrap();
        follow.take(&record("events.process.stop"));
        closed.cancelled().await;
    }
}
