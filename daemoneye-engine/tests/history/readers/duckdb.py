"""Asks DuckDB over the sealed files in argv[1] what mod.rs asks us."""
import sys

import duckdb

EVENTS = f"read_parquet('{sys.argv[1]}/process_events-*.parquet')"
LIFETIMES = f"read_parquet('{sys.argv[1]}/process_lifetimes-*.parquet')"
QUESTIONS = [
    f"SELECT count(*) FROM {EVENTS}",
    f"SELECT count(*) FROM {EVENTS} WHERE event_type = 'start' AND name = 'bash'",
    f"SELECT min(seq), max(seq) FROM {EVENTS}",
    f"SELECT entity_id, pid, command_line FROM {EVENTS} WHERE seq = 4711",
    f"SELECT count(*), sum(runtime_ms)::BIGINT FROM {LIFETIMES} WHERE stop_time IS NOT NULL AND end_observed",
    f"SELECT name, count(*) AS n FROM {LIFETIMES} WHERE stop_time IS NOT NULL GROUP BY name ORDER BY n DESC, name LIMIT 3",
]
answers = []
for question in QUESTIONS:
    rows = duckdb.sql(question).fetchall()
    answers.append("\n".join("|".join("NULL" if value is None else str(value) for value in row) for row in rows))
print("\n--\n".join(answers))
