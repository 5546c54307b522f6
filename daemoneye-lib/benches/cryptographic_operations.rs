//! What proof and integrity cost: the ledger's BLAKE3 chain, process identities, and the checksums of frames and of records on
//! disk.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should stop")]

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use daemoneye_lib::entity::EntityId;
use daemoneye_lib::frame::{self, BUS_LIMIT_BYTES};
use daemoneye_lib::ledger::event::Content;
use daemoneye_lib::ledger::{AuditEntry, ChainVerifier, GENESIS, RangeBuilder};
use daemoneye_lib::proto::{
    Envelope, EventType, ProcessEvent, ProcessRecord, Publish, Record, Sequence, envelope::Body,
};
use daemoneye_lib::segment;

/// An event's usual payload, and one with a long command line.
const SIZES: [usize; 2] = [200, 16 * 1024];
/// Entries of the chain that is verified: per entry the cost does not depend on it.
const ENTRIES: u64 = 1_000;
/// An event range as procmond writes it once a second.
const PAYLOAD: &[u8] = br#"{"first":"1:1000","last":"1:1999","events":1000,"hash":"6b8c2f0d"}"#;
const BOOT: &str = "c5a1e2f4-9d3b-4c57-8a60-1f2e3d4c5b6a";

fn entry(sequence: u64, previous: [u8; 32]) -> AuditEntry {
    AuditEntry::link(sequence, previous, 1_760_000_000_000, "procmond", "event-range", PAYLOAD)
}

fn chain(c: &mut Criterion) {
    let mut group = c.benchmark_group("cryptographic_operations");
    group.throughput(Throughput::Elements(1));
    group.bench_function("ledger: link one entry", |b| b.iter(|| entry(black_box(7), GENESIS)));
    let mut head = GENESIS;
    let link = |sequence| {
        let entry = entry(sequence, head);
        head = entry.entry_hash;
        entry
    };
    let entries: Vec<AuditEntry> = (0..ENTRIES).map(link).collect();
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("ledger: verify 1000 entries", |b| {
        b.iter(|| {
            let mut verifier = ChainVerifier::default();
            entries.iter().for_each(|entry| verifier.step(entry, Some(PAYLOAD)).unwrap());
            verifier.head()
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("entity_id: derive", |b| b.iter(|| EntityId::derive(BOOT, black_box(4_242), 987_654)));
    group.finish();
}

/// What procmond does with each event for its proof: the hash of its canonical bytes, and its leaf.
fn events(c: &mut Criterion) {
    let process = ProcessRecord {
        entity_id: vec![7; 16],
        parent_entity_id: Some(vec![8; 16]),
        pid: 4_242,
        ppid: Some(1),
        parent_name: Some("bash".into()),
        ancestry: Some("/systemd/sshd/bash/curl".into()),
        name: "curl".into(),
        executable_path: Some("/usr/bin/curl".into()),
        command_line: Some("curl -s https://example.org/some/where".into()),
        arg_lengths: vec![4, 2, 31],
        cwd: Some("/root".into()),
        uid: Some(0),
        gid: Some(0),
        euid: Some(0),
        user: Some("root".into()),
        session: Some(4_200),
        start_time_us: Some(1_760_000_000_000_000),
        executable_hash: Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into()),
        cgroup: Some("/system.slice/ssh.service".into()),
        ..ProcessRecord::default()
    };
    let event = ProcessEvent {
        event_type: EventType::Start.into(),
        time_us: 1_760_000_000_000_000,
        process: Some(process),
        source: "ebpf".into(),
        ..ProcessEvent::default()
    };
    let mut group = c.benchmark_group("cryptographic_operations");
    group.throughput(Throughput::Elements(1));
    group.bench_function("ledger: content of an event", |b| b.iter(|| Content::of_event(black_box(&event))));
    let mut ranges = RangeBuilder::new("procmond");
    let mut number = 0;
    group.bench_function("ledger: an event into its range", |b| {
        b.iter(|| {
            number += 1;
            ranges.add(Sequence::new(1, number), Content::Event([7; 32]));
        });
    });
    group.finish();
}

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("cryptographic_operations");
    for size in SIZES {
        let payload = vec![7; size];
        let record =
            Record { topic: "events.process.start".into(), payload: payload.clone().into(), ..Record::default() };
        let publish = Publish { records: vec![record], ..Publish::default() };
        let envelope = Envelope { body: Some(Body::Publish(publish)) };
        let mut framed = BytesMut::new();
        frame::encode(&envelope, BUS_LIMIT_BYTES, &mut framed).unwrap();
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("crc32c frame: encode", size), |b| {
            let mut out = BytesMut::new();
            b.iter(|| {
                out.clear();
                frame::encode(black_box(&envelope), BUS_LIMIT_BYTES, &mut out).unwrap();
            });
        });
        group.bench_function(BenchmarkId::new("crc32c frame: decode", size), |b| {
            // The copy of the bytes stands for the read from the socket.
            b.iter(|| frame::decode(&mut framed.clone(), BUS_LIMIT_BYTES).unwrap());
        });
        let header = (1_u64, 2_u64, "events.process.start");
        let mut stored = Vec::new();
        segment::encode(&mut stored, 0, 0, &header, &payload).unwrap();
        group.bench_function(BenchmarkId::new("crc32c record: encode", size), |b| {
            let mut out = Vec::new();
            b.iter(|| {
                out.clear();
                segment::encode(&mut out, 1, 0, black_box(&header), &payload).unwrap()
            });
        });
        group.bench_function(BenchmarkId::new("crc32c record: parse", size), |b| {
            b.iter(|| matches!(segment::parse(black_box(&stored), stored.len() as u64), segment::Parsed::Record(_)));
        });
    }
    group.finish();
}

criterion_group!(benches, chain, events, checksums);
criterion_main!(benches);
