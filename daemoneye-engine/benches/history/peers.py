"""SQLite and DuckDB over the segments of a store: loads, asks, compares, and writes what each took.

    peers.py QUESTIONS ANSWERS

Needs the module duckdb, which also reads the Parquet files for SQLite. Without it ANSWERS is an empty object.
SQLite gets what favours it: rows already decoded, one prepared statement, transactions of 65,536 rows, a cache that holds
the indexes, its file mapped. Its REGEXP is a function of Python's `re`, because SQLite itself has none.
"""

import datetime
import json
import os
import pathlib
import re
import sqlite3
import statistics
import sys
import time

TRANSACTION_ROWS = 65_536
WARM = 2
ROUNDS = 9
# A query that takes longer than this many seconds is asked fewer times.
LONG_S = 2.0
ROUNDS_IF_LONG = 3
# Seconds after which a query is given up.
GIVE_UP_S = 180.0
INDEXED = ("time", "pid", "name", "executable_hash")
EPOCH = datetime.datetime(1970, 1, 1)


def plain(value):
    """The form in which answers are compared."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, datetime.datetime):
        return (value - EPOCH) // datetime.timedelta(microseconds=1)
    if isinstance(value, bytes):
        return value.hex()
    return value


def ordered(rows):
    """Rows in one order, whatever order they came in."""
    return sorted(([plain(value) for value in row] for row in rows), key=lambda row: json.dumps(row))


def difference(rows, expected):
    """Empty when both are the same rows."""
    if len(rows) != len(expected):
        return f"{len(rows)} rows instead of {len(expected)}"
    for one, other in zip(ordered(rows), ordered(expected)):
        for value, wanted in zip(one, other):
            same = value == wanted
            if isinstance(value, float) and isinstance(wanted, (int, float)):
                same = abs(value - wanted) <= 1e-9 * max(abs(value), abs(wanted))
            if not same:
                return f"{value!r} instead of {wanted!r}"
    return ""


def timed(ask, expected):
    """The middle of several rounds, in milliseconds, and whether the answer is ours."""
    times = []
    rows = []
    for number in range(WARM + ROUNDS):
        began = time.perf_counter()
        rows = ask()
        took = time.perf_counter() - began
        if number >= WARM or took > LONG_S:
            times.append(took)
        if took > LONG_S and len(times) >= ROUNDS_IF_LONG:
            break
    return {"p50_ms": statistics.median(times) * 1e3, "differs": difference(rows, expected)}


def asked(questions, dialect, ask, only=None):
    """What each question took."""
    answers = {}
    for question in questions:
        if only is None or only(question):
            sql = question[dialect]
            try:
                answers[question["name"]] = timed(lambda: ask(sql), question["rows"])
            except Exception as error:  # what a peer cannot answer is told, and the others go on
                print(f"{dialect}: {question['name']}: {error}", file=sys.stderr)
    return answers


def columns_of(db, files):
    return [(name, kind) for name, kind, *_ in db.execute(f"DESCRIBE SELECT * FROM read_parquet('{files}')").fetchall()]


def duckdb_over(module, files, scratch, questions):
    """DuckDB's own table in a file of its own, asked with all threads and with one."""
    path = scratch / "peer.duckdb"
    db = module.connect(str(path))
    # Instants without a zone are the same bytes, and need no time zone database.
    columns = [
        f'make_timestamp(epoch_us("{name}")) AS "{name}"' if kind.startswith("TIMESTAMP") else f'"{name}"'
        for name, kind in columns_of(db, files)
    ]
    began = time.perf_counter()
    db.execute(f"CREATE TABLE process_events AS SELECT {', '.join(columns)} FROM read_parquet('{files}') ORDER BY time")
    db.execute("CHECKPOINT")
    took = time.perf_counter() - began
    (rows,) = db.execute("SELECT count(*) FROM process_events").fetchone()
    version = f"DuckDB {module.__version__}"
    ask = lambda sql: db.execute(sql).fetchall()
    peers = {}
    for name, threads in (("duckdb", 2), ("duckdb_1", 1)):
        db.execute(f"SET threads = {threads}")
        peers[name] = {"version": version, "answers": asked(questions, "duckdb", ask)}
    db.close()
    peers["duckdb"].update({"bytes": path.stat().st_size, "load_rows_per_second": rows / took})
    path.unlink()
    return peers


def bounded(db):
    """Runs a statement and gives it up when it takes too long."""

    def ask(sql):
        until = time.perf_counter() + GIVE_UP_S
        db.set_progress_handler(lambda: time.perf_counter() > until, 1_000_000)
        try:
            return db.execute(sql).fetchall()
        finally:
            db.set_progress_handler(None, 0)

    return ask


def sqlite_filled(module, files, scratch):
    """A database with the same columns and four indexes, and the rows a second that it took in."""
    source = module.connect()
    columns = columns_of(source, files)
    path = scratch / "peer.sqlite"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA cache_size = -1048576")
    db.execute("PRAGMA mmap_size = 68719476736")
    number = {"BIGINT": "INTEGER", "BOOLEAN": "INTEGER", "DOUBLE": "REAL", "BLOB": "BLOB"}
    kind_of = lambda kind: "INTEGER" if kind.startswith("TIMESTAMP") else number.get(kind, "TEXT")
    db.execute(f"CREATE TABLE process_events ({', '.join(f'{name} {kind_of(kind)}' for name, kind in columns)})")
    for column in INDEXED:
        db.execute(f"CREATE INDEX by_{column} ON process_events ({column})")
    selected = ", ".join(
        f'epoch_us("{name}")' if kind.startswith("TIMESTAMP") else f'"{name}"' for name, kind in columns
    )
    # As they arrive: in the order of time.
    rows_of = source.execute(f"SELECT {selected} FROM read_parquet('{files}') ORDER BY time")
    insert = f"INSERT INTO process_events VALUES ({', '.join('?' * len(columns))})"
    took, rows = 0.0, 0
    while batch := rows_of.fetchmany(TRANSACTION_ROWS):
        began = time.perf_counter()
        db.execute("BEGIN")
        db.executemany(insert, batch)
        db.execute("COMMIT")
        took += time.perf_counter() - began
        rows += len(batch)
    source.close()
    return db, path, rows / took


def sqlite_over(module, files, scratch, questions):
    db, path, rows_per_second = sqlite_filled(module, files, scratch)
    matches = lambda pattern, text: text is not None and re.search(pattern, text) is not None
    db.create_function("regexp", 2, matches, deterministic=True)
    # Like ours, which is case-sensitive.
    db.execute("PRAGMA case_sensitive_like = ON")
    db.execute("ANALYZE")
    version = f"SQLite {sqlite3.sqlite_version}"
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    four = {
        "version": version,
        "rows_per_second": rows_per_second,
        "bytes": path.stat().st_size,
        "answers": asked(questions, "sqlite", bounded(db)),
    }
    db.execute("CREATE INDEX by_entity ON process_events (entity_id)")
    db.execute("ANALYZE")
    named = lambda question: "entity" in question["name"] or "join" in question["name"]
    five = {"version": version, "answers": asked(questions, "sqlite", bounded(db), named)}
    db.close()
    return {"sqlite": four, "sqlite_entity": five}


def main():
    questions_path, answers_path = sys.argv[1:3]
    told = json.loads(pathlib.Path(questions_path).read_text(encoding="utf-8"))
    peers = {}
    try:
        import duckdb
    except ImportError:
        print("python has no duckdb (pip install duckdb); it reads the files for both peers", file=sys.stderr)
    else:
        files = pathlib.Path(told["segments"]) / "process_events-*.parquet"
        scratch = pathlib.Path(told["scratch"])
        peers.update(duckdb_over(duckdb, files, scratch, told["questions"]))
        # Of ten million rows it scans for a quarter of an hour.
        if os.environ.get("DAEMONEYE_BENCH_SQLITE") != "0":
            peers.update(sqlite_over(duckdb, files, scratch, told["questions"]))
    pathlib.Path(answers_path).write_text(json.dumps(peers), encoding="utf-8")


if __name__ == "__main__":
    main()
