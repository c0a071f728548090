"""The jobs that the benchmark enqueues; `bench/ledger_worker.py` handles them."""

from app.ledger.command import Command


class BenchWrite(Command, queue="bench"):
    """Write one row."""

    n: int

    @property
    def dedup_key(self) -> str:
        return f"bench_write:{self.n}"


class BenchStart(Command, queue="bench"):
    """Note when the handler began."""

    n: int

    @property
    def dedup_key(self) -> str:
        return f"bench_start:{self.n}"


class BenchLong(Command, queue="bench"):
    """Work for as long as the worker lives; the second attempt notes when it began, and ends."""

    n: int

    @property
    def dedup_key(self) -> str:
        return f"bench_long:{self.n}"
