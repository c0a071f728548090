"""The worker that the benchmark measures: the real one, with one more kind of job, which writes one row."""

from app.ledger.command import Command
from app.ledger.executor import Run, handles


class BenchWrite(Command, queue="bench"):
    """Write one row."""

    n: int

    @property
    def dedup_key(self) -> str:
        return f"bench_write:{self.n}"


@handles(BenchWrite)
def bench_write(run: Run[BenchWrite]) -> None:
    with run.finish() as db:
        db.exec_driver_sql("INSERT INTO bench_rows (n) VALUES (%(n)s)", {"n": run.payload.n})


import worker  # noqa: E402, F401  (last: it makes an actor of every handler known by then)
