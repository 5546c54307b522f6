"""Reads the sealed files in argv[1] with pyarrow and answers what mod.rs asks us."""
import glob
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def table(name):
    files = sorted(glob.glob(f"{sys.argv[1]}/{name}-*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


def line(*values):
    return "|".join("NULL" if value is None else str(value) for value in values)


events, lifetimes = table("process_events"), table("process_lifetimes")
assert str(events.schema.field("time").type) == "timestamp[us, tz=UTC]", events.schema
first = pq.read_metadata(glob.glob(f"{sys.argv[1]}/process_events-*.parquet")[0])
assert first.metadata[b"daemoneye.schema_version"], first.metadata
started = events.filter(pc.and_(pc.equal(events["event_type"], "start"), pc.equal(events["name"], "bash")))
one = events.filter(pc.equal(events["seq"], 4711)).to_pylist()
over = lifetimes.filter(pc.is_valid(lifetimes["stop_time"]))
watched = over.filter(over["end_observed"])
counts = over.group_by("name").aggregate([("name", "count")]).to_pylist()
counts.sort(key=lambda row: (-row["name_count"], row["name"]))
answers = [
    line(events.num_rows),
    line(started.num_rows),
    line(pc.min(events["seq"]), pc.max(events["seq"])),
    "\n".join(line(row["entity_id"], row["pid"], row["command_line"]) for row in one),
    line(watched.num_rows, pc.sum(watched["runtime_ms"])),
    "\n".join(line(row["name"], row["name_count"]) for row in counts[:3]),
]
print("\n--\n".join(answers))
