"""Reads the exported file argv[1] with pyarrow and with DuckDB, and prints what each has of it, as one JSON list. argv[2] is a path."""
import json
import sys

import duckdb
import pyarrow.compute as pc
import pyarrow.parquet as pq

file, path = sys.argv[1:]
table = pq.read_table(file)
assert str(table.schema.field("time").type) == "timestamp[us, tz=UTC]", table.schema
own = table.filter(pc.equal(table["executable_path"], path)).sort_by("seq").to_pylist()
ours = {
    "rows": table.num_rows,
    "entities": len(pc.unique(table["entity_id"])),
    "pids": pc.sum(table["pid"]).as_py(),
    "own": [[row["seq"], row["pid"], row["name"], row["command_line"]] for row in own],
}
source = f"read_parquet('{file}')"
rows, entities, pids = duckdb.sql(
    f"SELECT count(*), count(DISTINCT entity_id), sum(pid)::BIGINT FROM {source}"
).fetchall()[0]
own = duckdb.execute(
    f"SELECT seq, pid, name, command_line FROM {source} WHERE executable_path = ? ORDER BY seq", [path]
).fetchall()
theirs = {"rows": rows, "entities": entities, "pids": pids, "own": [list(row) for row in own]}
print(json.dumps([ours, theirs]))
