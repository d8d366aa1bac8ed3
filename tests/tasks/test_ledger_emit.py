"""Events reach a real HTTP server as they happen; one that hangs, errs or is not there costs the run nothing."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tasks.ledger import Entry, Ledger, emit
from tasks.workspace import REPOSITORY

NOTE = Entry(kind="approval", job="approve", status="done")
KEY = "secret-key-8471"


@dataclass
class Receiver:
    """A server that keeps what it is sent, and answers as it is told."""

    url: str = ""
    status: int = 200
    hold: threading.Event | None = None
    """Answer only once it is set."""
    came: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kept.came.append((self.path, self.headers.get("Authorization", ""), body))
            if kept.hold is not None:
                kept.hold.wait(30)
            self.send_response(kept.status)
            if kept.status == 302:
                self.send_header("Location", f"{kept.url}/elsewhere")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    kept.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    monkeypatch.setenv("OPENLINEAGE_URL", kept.url)
    monkeypatch.setenv("OPENLINEAGE_API_KEY", KEY)
    monkeypatch.setattr(emit, "_SENDERS", {})  # what was told once is told anew in every test
    yield kept
    if kept.hold is not None:
        kept.hold.set()
    server.shutdown()
    server.server_close()


def test_events_arrive_in_order_as_they_stand_in_the_ledger(receiver: Receiver, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for _ in range(5):
        ledger.append(NOTE)
    assert emit.settle(30)
    assert [body for _, _, body in receiver.came] == [
        json.loads((tmp_path / f"0000000{number}.json").read_bytes()) for number in range(1, 6)
    ]
    assert {(path, key) for path, key, _ in receiver.came} == {("/api/v1/lineage", f"Bearer {KEY}")}


@pytest.mark.parametrize(("name", "value"), [("OPENLINEAGE_URL", ""), ("OPENLINEAGE_DISABLED", "true")])
def test_nothing_is_sent_unasked(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    Ledger(tmp_path).append(NOTE)
    assert emit.settle(10) and receiver.came == []


@pytest.mark.parametrize("status", [500, 302])
def test_a_server_that_errs_is_told_once_without_secrets(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    receiver.status = status
    monkeypatch.setenv("OPENLINEAGE_URL", receiver.url)
    monkeypatch.setenv("OPENLINEAGE_ENDPOINT", "token-in-a-path/lineage")
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            Ledger(tmp_path).append(NOTE)
        assert emit.settle(30)
    assert Ledger(tmp_path).verify() == [] and len(Ledger(tmp_path).entries()) == 3
    told = [r.getMessage() for r in caplog.records if "events do not reach" in r.getMessage()]
    assert told == [f"events do not reach 127.0.0.1: it answered {status}; the run goes on, the ledger has them"]
    assert KEY not in caplog.text and "token-in-a-path" not in caplog.text
    assert {path for path, _, _ in receiver.came} == {"/token-in-a-path/lineage"}


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "ftp://127.0.0.1", "http://[::1", "http://127.0.0.1:port"])
def test_an_address_where_nobody_is_or_could_be(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", url)
    Ledger(tmp_path).append(NOTE)
    assert emit.settle(30)
    assert "events do not reach" in caplog.text and len(Ledger(tmp_path).entries()) == 1


def test_a_server_that_hangs_holds_nobody_up(receiver: Receiver, tmp_path: Path) -> None:
    """Entries are written while the first event still waits for its answer."""
    receiver.hold = threading.Event()
    for _ in range(20):
        Ledger(tmp_path).append(NOTE)
    assert len(Ledger(tmp_path).entries()) == 20 and len(receiver.came) <= 1
    receiver.hold.set()
    assert emit.settle(30) and len(receiver.came) == 20


def test_more_events_than_may_wait_are_dropped(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.hold = threading.Event()
    for _ in range(emit.WAITING + 10):
        emit.send(b"{}")
    assert "events are waiting, more are dropped" in caplog.text
    receiver.hold.set()


PROGRAM = """
import sys
from pathlib import Path
from tasks.ledger import Entry, Ledger
Ledger(Path(sys.argv[1])).append(Entry(kind="approval", job="approve", status="done"))
"""


def test_a_process_that_ends_sends_what_waits_and_does_not_wait_for_ever(receiver: Receiver, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "one")]
    subprocess.run(command, check=True, cwd=REPOSITORY, env=dict(os.environ), timeout=60)
    assert len(receiver.came) == 1
    receiver.hold = threading.Event()
    ended = subprocess.run(command, check=True, cwd=REPOSITORY, env=dict(os.environ), timeout=60, capture_output=True)
    assert ended.stderr == b"" and len(receiver.came) == 2 and len(Ledger(tmp_path / "one").entries()) == 2


def test_a_forked_process_sends_for_itself(receiver: Receiver, tmp_path: Path) -> None:
    Ledger(tmp_path).append(NOTE)
    assert emit.settle(30)
    child = os.fork()
    if child == 0:
        Ledger(tmp_path).append(NOTE)
        os._exit(0 if emit.settle(30) else 1)
    until = time.monotonic() + 60
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert [body["run"]["facets"]["r1kit_entry"]["sequence"] for _, _, body in receiver.came] == [1, 2]
