//! The same work through a `nats-server`, where one is installed: the yardstick of a broker over a text protocol on TCP.

use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::second::{Kind, Outcome, Second, Tally, Task, ready};
use crate::{Pace, Payload};

/// How long the server may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is written at once at full speed, as NATS's own clients do.
const BUFFER_BYTES: usize = 64 * 1024;

/// A server that ends with this value.
pub(crate) struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// `None` where no `nats-server` is installed.
    pub(crate) fn start() -> Option<Self> {
        // A port that was free a moment ago: the server says its own choice only in a file.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("nats-server");
        command.args(["--addr", "127.0.0.1", "--port", &address.port().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { child: command.spawn().ok()?, address: address.to_string() };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(began.elapsed() < PATIENCE, "nats-server does not listen on {address}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Some(server)
    }

    /// One measurement, as the broker's.
    pub(crate) async fn carry(&self, count: usize, payload: Payload, pace: Option<Duration>) -> Outcome {
        let place = self.address.clone();
        let second = Second::start(&Task { kind: Kind::Nats, count, place }, payload.window());
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, connect(&self.address));
        let paced = pace.is_some();
        let mut pace = Pace::new(pace);
        for _ in 0..count {
            if let Ok(permit) = second.window.try_acquire() {
                permit.forget();
            } else {
                out.flush().unwrap();
                second.window.acquire().await.unwrap().forget();
            }
            pace.next().await;
            let payload = payload.stamped();
            write!(out, "PUB bench {}\r\n", payload.len()).unwrap();
            out.write_all(&payload).unwrap();
            out.write_all(b"\r\n").unwrap();
            if paced {
                out.flush().unwrap();
            }
        }
        out.flush().unwrap();
        second.outcome().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Connected and greeted; the server answers a client that does not ask for it with errors only.
fn connect(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(b"CONNECT {\"verbose\":false}\r\n").unwrap();
    stream
}

/// The subscriber, in the second process.
pub(crate) fn subscribe(address: &str, mut tally: Tally) {
    let mut out = connect(address);
    let mut input = BufReader::with_capacity(BUFFER_BYTES, out.try_clone().unwrap());
    // The answer to the ping shows that the subscription stands.
    out.write_all(b"SUB bench 1\r\nPING\r\n").unwrap();
    let (mut line, mut payload) = (String::new(), Vec::new());
    loop {
        line.clear();
        if input.read_line(&mut line).unwrap() == 0 {
            return;
        }
        let mut words = line.split_whitespace();
        match words.next() {
            Some("MSG") => {
                let length: usize = words.next_back().and_then(|word| word.parse().ok()).unwrap();
                payload.resize(length + 2, 0);
                input.read_exact(&mut payload).unwrap();
                tally.take(&payload);
            }
            Some("PONG") => ready(),
            Some("PING") => out.write_all(b"PONG\r\n").unwrap(),
            _ => {}
        }
    }
}
