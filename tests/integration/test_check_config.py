"""`postroom check-config --connect`: what it says of each engine, and what it makes there (nothing)."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.deadline import DEADLINE
from tests.support.engines import Nats, RabbitMQ
from tests.support.postgres import Postgres
from tests.support.server import free_port
from tests.support.valkey import Valkey


def check(folder: Path, store: str, backplane: str = "") -> tuple[int, str]:
    file = folder / "postroom.toml"
    file.write_text(f'dev = true\nstore = "{store}"\nbackplane = "{backplane}"\n')
    command = [sys.executable, "-m", "postroom", "check-config", "--connect", "--config", str(file)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, timeout=6 * DEADLINE, check=False, stdin=subprocess.DEVNULL
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def schema_of(url: str) -> str:
    return url.partition("schema=")[2].partition("&")[0]


def test_a_file_that_can_be_made_is_not_made(tmp_path: Path) -> None:
    code, said = check(tmp_path, f"sqlite:///{tmp_path}/data/x.db")
    assert (code, said.splitlines()[-1]) == (0, f"store sqlite:///{tmp_path}/data/x.db: ok")
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database at all" * 100)
    code, said = check(tmp_path, f"sqlite:///{tmp_path}/x.db")
    assert code == 1
    assert "cannot be opened" in said


def test_sqlite_with_a_backplane_is_refused(tmp_path: Path, fresh_url: str) -> None:
    code, said = check(tmp_path, f"sqlite:///{tmp_path}/x.db", fresh_url)
    assert code == 2
    assert "is a store for one node" in said


def test_a_valkey_that_is_well(tmp_path: Path, fresh_url: str) -> None:
    code, said = check(tmp_path, fresh_url)
    assert code == 0
    assert [line.partition(" ")[0] for line in said.splitlines() if line.endswith(": ok")] == [
        "store",
        "directory",
        "backplane",
    ]


def test_a_valkey_that_may_evict_and_a_user_without_rights(tmp_path: Path, own_valkey: Valkey) -> None:
    own_valkey.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    code, said = check(tmp_path, own_valkey.url)
    assert code == 0
    assert "advice: " in said
    assert "maxmemory-policy" in said
    own_valkey.command("ACL", "SETUSER", "weak", "on", ">secret", "~*", "+info", "+client", "+ping", "+config")
    code, said = check(tmp_path, own_valkey.url.replace("://", "://weak:secret@"))
    assert code == 1
    assert "the rights that a user needs" in said
    assert "secret" not in said


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    port = free_port()
    for url in (f"redis://127.0.0.1:{port}?timeout=1", f"postgresql://x@127.0.0.1:{port}/x?timeout=1&sslmode=disable"):
        code, said = check(tmp_path, url)
        assert code == 1
        assert f"store {url}: not usable" in said


@pytest.mark.parametrize("scheme", ["redis", "nats", "amqp", "postgresql"])
def test_a_backplane_that_is_not_there(tmp_path: Path, fresh_url: str, scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{free_port()}"
    code, said = check(tmp_path, fresh_url, f"{url}?timeout=1")
    assert code == 1
    assert f"backplane {url}?timeout=1: not usable\n  error: " in said
    assert "Connect call failed" in said


def test_what_a_store_that_is_not_usable_is_not_asked_for(tmp_path: Path) -> None:
    _, said = check(tmp_path, f"redis://127.0.0.1:{free_port()}?timeout=1")
    assert "directory" not in said


def test_credentials_that_a_broker_does_not_know(tmp_path: Path, fresh_url: str, rabbitmq: RabbitMQ) -> None:
    code, said = check(tmp_path, fresh_url, rabbitmq.url.replace("guest:guest@", "guest:s3cr3t@") + "?timeout=1")
    assert code == 1
    assert "ACCESS_REFUSED" in said
    assert "s3cr3t" not in said
    with Nats(tmp_path / "nats", config='authorization { user: "ann", password: "pass" }') as server:
        code, said = check(tmp_path, fresh_url, server.url.replace("://", "://ann:s3cr3t@") + "?timeout=1")
    assert code == 1
    assert "Authorization Violation" in said
    assert "s3cr3t" not in said


def test_a_virtual_host_that_is_not_there(tmp_path: Path, fresh_url: str, rabbitmq: RabbitMQ) -> None:
    code, said = check(tmp_path, fresh_url, f"{rabbitmq.url}/nowhere?timeout=1")
    assert code == 1
    assert "the server refuses the virtual host 'nowhere'" in said


def test_a_sentinel_that_is_not_there_and_a_server_that_is_no_cluster(tmp_path: Path, valkey: Valkey) -> None:
    code, said = check(tmp_path, f"redis+sentinel://127.0.0.1:{free_port()}/mymaster?timeout=1")
    assert code == 1
    assert said.count("No master found for 'mymaster'\n") == 2
    code, said = check(tmp_path, f"redis+cluster://127.0.0.1:{valkey.port}?timeout=1")
    assert code == 1
    assert "cluster support disabled" in said


def test_replicas_that_are_not_connected(tmp_path: Path, fresh_url: str) -> None:
    code, said = check(tmp_path, f"{fresh_url}&wait-replicas=2")
    assert code == 0
    assert "advice: " in said
    assert "no durable message is accepted now: wait-replicas is 2, and 0 are connected" in said


def test_a_role_that_may_only_read(tmp_path: Path, postgres: Postgres, postgres_url: str) -> None:
    postgres.query("DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    postgres.query("ALTER ROLE reader SET default_transaction_read_only = on")
    code, said = check(tmp_path, postgres_url.replace("postroom@", "reader@"))
    assert code == 1
    assert "set default_transaction_read_only to off" in said


def test_what_workers_would_start_is_not_tried_and_what_is_named_is(tmp_path: Path, fresh_url: str) -> None:
    code, said = check(tmp_path, fresh_url, "embedded:")
    assert code == 0
    assert f"store {fresh_url}: ok" in said
    assert "backplane" not in said


def test_a_postgresql_that_is_well_stays_as_it_was(tmp_path: Path, postgres: Postgres, postgres_url: str) -> None:
    code, said = check(tmp_path, postgres_url)
    assert code == 0
    assert said.count(": ok") == 3
    ((there,),) = postgres.query("SELECT to_regnamespace($1) IS NOT NULL", schema_of(postgres_url))
    assert not there


def test_a_role_that_may_not_make_the_schema(tmp_path: Path, postgres: Postgres, postgres_url: str) -> None:
    postgres.query("DO $$ BEGIN CREATE ROLE weak LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    code, said = check(tmp_path, postgres_url.replace("postroom@", "weak@"))
    assert code == 1
    assert f"CREATE SCHEMA {schema_of(postgres_url)} AUTHORIZATION" in said


def test_a_database_in_another_encoding(tmp_path: Path, postgres: Postgres, postgres_url: str) -> None:
    if not postgres.query("SELECT 1 FROM pg_database WHERE datname = 'latin'"):
        postgres.query("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    code, said = check(tmp_path, postgres_url.replace("/postgres?", "/latin?"))
    assert code == 1
    assert "encoding is LATIN1" in said


@pytest.mark.fault
def test_settings_that_lose_messages(tmp_path: Path) -> None:
    with Postgres(settings={"fsync": "off", "max_connections": "8"}) as server:
        code, said = check(tmp_path, server.url())
    assert code == 0
    assert "set fsync to on" in said
    assert "max_connections" in said


def test_a_backplane_that_does_not_let_one_listen(tmp_path: Path, fresh_url: str) -> None:
    config = (
        'authorization { users = [{ user: "x", password: "y",'
        ' permissions: { publish: ">", subscribe: { deny: "postroom.node.>" } } }] }'
    )
    with Nats(tmp_path / "nats", config=config) as server:
        url = server.url.replace("://", "://x:y@")
        code, said = check(tmp_path, fresh_url, url)
    assert code == 1
    assert "backplane nats://x:***@" in said
