//! Enumeration and tracking. Figures belong to the machine they ran on; nothing here fails a build.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::ProcessRecord;
use procmond::collector::{Image, ProcessCollector, Sighting, Vitals};
use procmond::sources::{native, sysinfo::SysinfoCollector};
use procmond::tracker::{Input, Limits, Tracker};
use std::hint::black_box;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Sleeping processes that end with this value.
struct Crowd(Vec<Child>);

impl Crowd {
    /// Beside those that run anyway: `PROCESSES=10000 cargo bench -p procmond`.
    fn gather() -> Self {
        let wanted = std::env::var("PROCESSES").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let sleeper = || Command::new("sleep").arg("3600").stdin(Stdio::null()).spawn();
        Self((0..wanted).map_while(|_| sleeper().ok()).collect())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().ok();
        }
        for child in &mut self.0 {
            child.wait().ok();
        }
    }
}

/// All processes of the host, as a fresh reader finds them.
fn everybody() -> u64 {
    let mut seen = 0;
    if let Ok(mut collector) = native::open(Path::new("/proc")) {
        collector.collect_processes(&mut |_| seen += 1).ok();
    }
    seen
}

fn enumerate(c: &mut Criterion) {
    let crowd = Crowd::gather();
    let mut group = c.benchmark_group(format!("enumerate, {} sleepers beside the host's", crowd.0.len()));
    group.sample_size(10).throughput(Throughput::Elements(everybody()));
    group.bench_function("procfs/baseline", |b| {
        b.iter_batched(
            || native::open(Path::new("/proc")).ok(),
            |collector| {
                collector.map(|mut collector| collector.collect_processes(&mut |seen| drop(black_box(seen))).ok())
            },
            BatchSize::PerIteration,
        );
    });
    if let Ok(mut collector) = native::open(Path::new("/proc")) {
        group.bench_function("procfs/reconcile", |b| {
            b.iter(|| collector.collect_processes(&mut |seen| drop(black_box(seen))).ok());
        });
    }
    if let Ok(mut collector) = SysinfoCollector::open() {
        group.bench_function("sysinfo", |b| {
            b.iter(|| collector.collect_processes(&mut |seen| drop(black_box(seen))).ok());
        });
    }
    group.bench_function("ps", |b| {
        b.iter(|| Command::new("ps").args(["-e", "-o", "pid,ppid,args"]).output().map(|out| out.stdout.len()).ok());
    });
    group.finish();
}

fn record(pid: u32) -> ProcessRecord {
    ProcessRecord {
        entity_id: EntityId::derive("boot", pid, 1).as_bytes().to_vec(),
        pid,
        ppid: Some(pid / 10),
        name: "worker".into(),
        executable_path: Some("/usr/bin/worker".into()),
        command_line: Some("worker --config /etc/worker.conf --verbose".into()),
        arg_lengths: vec![6, 8, 16, 9],
        start_time_us: Some(i64::from(pid)),
        ..ProcessRecord::default()
    }
}

fn sweep(tracker: &mut Tracker, sightings: Vec<Sighting>) -> usize {
    let mut events = 0;
    let mut emit = |event| {
        black_box(event);
        events += 1;
    };
    tracker.apply(Input::Begin { time_us: 1_000_000 }, &mut emit);
    for sighting in sightings {
        tracker.apply(Input::Seen(sighting), &mut emit);
    }
    tracker.apply(Input::End { complete: true }, &mut emit);
    while tracker.proceed(&mut emit) {}
    events
}

fn track(c: &mut Criterion) {
    const PROCESSES: u32 = 10_000;
    let mut group = c.benchmark_group("track");
    group.sample_size(10).throughput(Throughput::Elements(u64::from(PROCESSES)));
    let baseline =
        || (1..=PROCESSES).map(|pid| Sighting::Read(Box::new(record(pid)), Image::UNSEEN)).collect::<Vec<_>>();
    group.bench_function("baseline of 10,000", |b| {
        b.iter_batched(
            || (Tracker::new("bench", "boot", Limits::default()), baseline()),
            |(mut tracker, sightings)| sweep(&mut tracker, sightings),
            BatchSize::PerIteration,
        );
    });
    let mut tracker = Tracker::new("bench", "boot", Limits::default());
    sweep(&mut tracker, baseline());
    let unchanged = || {
        let vitals = |pid| Vitals {
            entity: EntityId::derive("boot", pid, 1),
            pid,
            status: "sleeping",
            cpu_usage: None,
            memory_usage: Some(1),
        };
        (1..=PROCESSES).map(|pid| Sighting::Same(vitals(pid))).collect::<Vec<_>>()
    };
    group.bench_function("10,000 unchanged", |b| {
        b.iter_batched(unchanged, |sightings| sweep(&mut tracker, sightings), BatchSize::PerIteration);
    });
    group.bench_function("checkpoint of 10,000", |b| b.iter(|| tracker.export(&mut std::io::sink()).ok()));
    group.finish();
}

criterion_group!(benches, enumerate, track);
criterion_main!(benches);
