"""What the ledger is compared with: Dramatiq as it comes, one actor, one committed row by plain psycopg."""

import os
import threading

import dramatiq
import psycopg
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["REDIS_URL"]))

_local = threading.local()


@dramatiq.actor(queue_name="bare")
def write(n: int) -> None:
    """Write one row."""
    try:
        db = _local.connection
    except AttributeError:
        db = _local.connection = psycopg.connect(os.environ["DATABASE_URL"])
    db.execute("INSERT INTO bench_rows (n) VALUES (%s)", (n,))
    db.commit()
