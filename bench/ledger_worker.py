"""The worker that the benchmark measures: the real one, with the benchmark's jobs beside its own."""

import time

from app.ledger.run import Run, handles
from bench.commands import BenchLong, BenchStart, BenchWrite


@handles(BenchWrite)
def bench_write(run: Run[BenchWrite]) -> None:
    with run.finish() as db:
        db.exec_driver_sql("INSERT INTO bench_rows (n) VALUES (%(n)s)", {"n": run.payload.n})


def _note_start(run: Run[BenchStart] | Run[BenchLong], began: float) -> None:
    with run.finish() as db:
        db.exec_driver_sql(
            "INSERT INTO bench_starts (n, attempt, monotonic_s) VALUES (%(n)s, %(attempt)s, %(began)s)",
            {"n": run.payload.n, "attempt": run.claim.attempt, "began": began},
        )


@handles(BenchStart)
def bench_start(run: Run[BenchStart]) -> None:
    _note_start(run, time.monotonic())


@handles(BenchLong)
def bench_long(run: Run[BenchLong]) -> None:
    began = time.monotonic()
    if run.claim.attempt == 1:
        time.sleep(300)  # until the benchmark kills this process
    _note_start(run, began)


import worker  # noqa: E402, F401  (last: it makes an actor of every handler known by then)
