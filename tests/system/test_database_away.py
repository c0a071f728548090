"""PostgreSQL is away, full, read-only or behind: 503 and nothing half written, then recovery (failures.md 42, 45)."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.db import get_engine, make_engine
from app.migrations import migrate
from tests.conftest import ROOT, cut_all_sessions, wait_until
from tests.processes import Process
from tests.system.cable import Cable
from tests.system.scene import (
    JANE,
    Answer,
    Mailbox,
    Site,
    count,
    one,
    rows_of_all_tables,
    sign_up,
    sql,
)


def through(cable: Cable) -> str:
    """DATABASE_URL by way of the cable."""
    parts = psycopg.conninfo.conninfo_to_dict(os.environ["DATABASE_URL"])
    return f"postgresql://{parts.get('user', 'postgres')}@127.0.0.1:{cable.port}/{parts['dbname']}"


def is_away(answer: Answer | TestResponse) -> None:
    """503 with Retry-After, and a problem that gives nothing away, and says nothing of what was stored: who only reads
    stores nothing, and of a commit that is cut off nobody knows."""
    status = answer.status if isinstance(answer, Answer) else answer.status_code
    headers = {name.lower(): value for name, value in dict(answer.headers).items()}
    assert status == 503
    assert int(headers["retry-after"]) > 0
    assert headers["content-type"] == "application/problem+json"
    assert "postgres" not in str(answer.json).lower().replace("postgresql cannot be reached", "")
    assert "127.0.0.1" not in str(answer.json)
    assert "stored" not in answer.json["detail"]


def test_a_signup_while_the_database_is_away_is_told_to_come_again_and_then_taken(
    start_web: Callable[..., Site], postgres_cable: Cable
) -> None:
    site = start_web(DATABASE_URL=through(postgres_cable))
    assert site.post("/api/v1/customers", JANE).status == 202
    before = rows_of_all_tables()
    postgres_cable.cut()
    for _ in range(3):
        is_away(site.post("/api/v1/customers", JANE))
    is_away(site.get("/api/v1/billing/status", X_API_Key="rsolv_" + "x" * 43))
    is_away(site.get("/api/v1/signups/01900000-0000-7000-8000-000000000000"))
    is_away(site.get("/readyz"))
    assert site.get("/healthz").status == 200
    assert rows_of_all_tables() == before
    postgres_cable.mend()
    wait_until(lambda: site.get("/readyz").status == 200, what="readiness")
    assert site.post("/api/v1/customers", JANE).status == 202


def test_a_worker_outlives_the_database_and_finishes_what_was_accepted(
    web: FlaskClient, start_worker: Callable[..., Process], postgres_cable: Cable, mailbox: Mailbox
) -> None:
    worker = start_worker(DATABASE_URL=through(postgres_cable))
    postgres_cable.cut()
    sign_up(web)
    worker.wait_for_output("drain.failed")
    postgres_cable.mend()
    wait_until(lambda: one("SELECT status FROM signups") == "provisioned", 60, "a provisioned signup")
    assert worker.alive
    assert len(mailbox.mails()) == 1


def test_the_first_request_after_a_restart_of_postgresql_is_taken(web: FlaskClient) -> None:
    """The sessions that a process had kept are dead then; no sender should be what finds that out."""
    assert sign_up(web, email="before@example.com").status_code == 202
    cut_all_sessions()
    assert sign_up(web).status_code == 202
    cut_all_sessions()
    assert web.get("/readyz").status_code == 200


def test_an_exhausted_pool_is_a_503_and_then_over(web: FlaskClient) -> None:
    with ExitStack() as stack:
        for _ in range(get_engine().pool.size()):
            stack.enter_context(get_engine().connect())
        is_away(sign_up(web))
        is_away(web.get("/readyz"))
    assert count("signups") == 0
    assert sign_up(web).status_code == 202


@pytest.fixture
def crowded() -> Iterator[str]:
    """DATABASE_URL of a user who may have no connection any more."""
    role = f"tallyhook_crowded_{os.getpid()}"  # roles belong to the server, which the suite's processes may share
    sql(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")
    sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    yield os.environ["DATABASE_URL"].replace("postgres@", f"{role}@").replace("postgres:@", f"{role}:@")
    sql(f"DROP OWNED BY {role}")
    sql(f"DROP ROLE {role}")


def test_too_many_connections_are_a_503_and_then_over(start_web: Callable[..., Site], crowded: str) -> None:
    site = start_web(DATABASE_URL=crowded)
    is_away(site.post("/api/v1/customers", JANE))
    assert count("signups") == 0
    sql(f"ALTER ROLE {psycopg.conninfo.conninfo_to_dict(crowded)['user']} CONNECTION LIMIT 50")
    assert site.post("/api/v1/customers", JANE).status == 202
    site.process.kill()


def test_a_database_that_has_become_read_only_is_a_503_and_then_over(web: FlaskClient) -> None:
    name = one("SELECT current_database()")
    sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    get_engine().dispose()
    try:
        is_away(sign_up(web))
    finally:
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as db:
            db.execute("SET default_transaction_read_only = off")
            db.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        get_engine().dispose()
    assert count("signups") == 0
    assert sign_up(web).status_code == 202


def test_a_full_disk_is_a_503_and_nothing_half_written(web: FlaskClient) -> None:
    # What PostgreSQL raises when it cannot extend a file, at the second of the two rows of a signup.
    sql(
        "CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
    )
    sql("CREATE TRIGGER disk_full BEFORE INSERT ON jobs EXECUTE FUNCTION disk_full()")
    try:
        is_away(sign_up(web))
    finally:
        sql("DROP FUNCTION disk_full CASCADE")
    assert (count("signups"), count("jobs"), count("job_keys")) == (0, 0, 0)
    assert sign_up(web).status_code == 202


def test_a_table_that_somebody_has_locked_is_a_503_and_no_thread_hangs(web: FlaskClient) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"]) as other:
        other.execute("LOCK TABLE signups")
        is_away(sign_up(web))
    assert sign_up(web).status_code == 202


def test_metrics_of_the_processes_are_served_while_the_database_is_away(
    start_web: Callable[..., Site], postgres_cable: Cable
) -> None:
    site = start_web(DATABASE_URL=through(postgres_cable))
    postgres_cable.cut()
    is_away(site.post("/api/v1/customers", JANE))
    answer = site.get("/metrics")
    assert answer.status == 200
    assert 'status="503"' in answer.text


# 45: an older and a newer schema


def tallyhook(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.ops.cli", *arguments],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )


def test_readyz_and_senders_are_told_while_the_schema_is_older_until_it_is_migrated(
    start_web: Callable[..., Site], empty_database: str
) -> None:
    site = start_web(DATABASE_URL=empty_database)
    not_ready = site.get("/readyz")
    is_away(not_ready)
    assert "tallyhook db migrate" in not_ready.json["detail"]
    assert site.post("/api/v1/customers", JANE).status == 503
    migrated = tallyhook("db", "migrate", DATABASE_URL=empty_database)
    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert site.get("/readyz").status == 200
    assert site.post("/api/v1/customers", JANE).status == 202
    again = tallyhook("db", "migrate", DATABASE_URL=empty_database)
    assert again.returncode == 0
    assert "already" in again.stdout


def test_migrate_refuses_a_database_that_a_newer_release_has_migrated(empty_database: str) -> None:
    engine = make_engine(empty_database)
    migrate(engine)
    engine.dispose()
    with psycopg.connect(empty_database, autocommit=True) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    result = tallyhook("db", "migrate", DATABASE_URL=empty_database)
    assert result.returncode == 1
    assert "9999" in result.stderr
    assert "Traceback" not in result.stderr
    with psycopg.connect(empty_database) as db:
        assert db.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


def test_a_newer_database_is_ready_for_this_release(start_web: Callable[..., Site], empty_database: str) -> None:
    engine = make_engine(empty_database)
    migrate(engine)
    engine.dispose()
    with psycopg.connect(empty_database, autocommit=True) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    assert start_web(DATABASE_URL=empty_database).get("/readyz").status == 200


def test_two_migrations_at_once_migrate_once(empty_database: str) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "app.ops.cli", "db", "migrate"],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": empty_database},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = sorted(process.communicate()[0] for process in running)
    assert [process.returncode for process in running] == [0, 0, 0]
    assert [("already" in line) for line in said] == [True, True, False]


def test_nothing_is_answered_before_the_commit(web: FlaskClient) -> None:
    """Law 1: a commit that fails at its very end is a 503, not a 202."""
    sql(
        "CREATE FUNCTION test_full() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = 'disk_full'; END $$"
    )
    sql(
        "CREATE CONSTRAINT TRIGGER test_full AFTER INSERT ON jobs DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION test_full()"
    )
    try:
        assert sign_up(web).status_code == 503
        assert (count("signups"), count("jobs")) == (0, 0)
    finally:
        sql("DROP FUNCTION test_full CASCADE")
