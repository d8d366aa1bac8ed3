"""Sending entries on as they happen, to what takes OpenLineage events over HTTP, such as Marquez.

OPENLINEAGE_URL names the server; OPENLINEAGE_ENDPOINT (`api/v1/lineage`), OPENLINEAGE_API_KEY and OPENLINEAGE_DISABLED
are as with OpenLineage's own client. Sending happens beside the run: a server that hangs, refuses or is not there is
told in the log, once, and the run neither fails nor waits for it. The ledger has every event, whatever was sent.
"""

import atexit
import logging
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from urllib.parse import urlsplit

LOG = logging.getLogger(__name__)
TIMEOUT_SECONDS = 5.0
PARTING_SECONDS = 2.0
"""How long a process that ends waits for what was not sent yet; not at all where nothing got through."""
WAITING = 1000
"""Events that may wait; more are dropped."""


def send(event: bytes) -> None:
    """Hand an event over, if OPENLINEAGE_URL asks for it. Returns at once and raises nothing."""
    address = os.environ.get("OPENLINEAGE_URL", "")
    if not address or os.environ.get("OPENLINEAGE_DISABLED", "").lower() in ("true", "1"):
        return
    endpoint = os.environ.get("OPENLINEAGE_ENDPOINT") or "api/v1/lineage"
    _sender().take(f"{address.rstrip('/')}/{endpoint.lstrip('/')}", os.environ.get("OPENLINEAGE_API_KEY", ""), event)


def settle(seconds: float) -> bool:
    """Wait until everything handed over was sent or given up, at most so long. Says whether it was."""
    return _sender().settle(seconds)


class _Sender:
    """A queue and the thread that empties it."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[str, str, bytes]] = queue.Queue(WAITING)
        self._told: set[str] = set()
        self._fails = False
        threading.Thread(target=self._work, name="openlineage", daemon=True).start()

    def take(self, address: str, key: str, event: bytes) -> None:
        try:
            self._queue.put_nowait((address, key, event))
        except queue.Full:
            self._tell(address, f"{WAITING} events are waiting, more are dropped")

    def settle(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while self._queue.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.01)
        return not self._queue.unfinished_tasks

    def part(self) -> None:
        """At the end of the process."""
        if not self._fails:
            self.settle(PARTING_SECONDS)

    def _work(self) -> None:
        while True:
            address, key, event = self._queue.get()
            try:
                fault = _post(address, key, event)
                self._fails = fault is not None
                if fault:
                    self._tell(address, fault)
            finally:
                self._queue.task_done()

    def _tell(self, address: str, fault: str) -> None:
        """Once for each server; never its path, user or key, which may be secret."""
        server = _host(address) or "the server that OPENLINEAGE_URL names"
        if server not in self._told:
            self._told.add(server)
            LOG.warning("events do not reach %s: %s; the run goes on, the ledger has them", server, fault)


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _opener() -> urllib.request.OpenerDirector:
    """One that does not follow redirects: a key is for the server that it was given for."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener


def _post(address: str, key: str, event: bytes) -> str | None:
    """Send one event. Returns why it did not arrive; None if it did."""
    if not address.startswith(("http://", "https://")):
        return "OPENLINEAGE_URL is not an http or https address"
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    try:
        request = urllib.request.Request(address, data=event, headers=headers)  # noqa: S310 - the scheme was checked
        with _opener().open(request, timeout=TIMEOUT_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        return f"it answered {error.code}"
    except (OSError, HTTPException, ValueError) as error:
        return type(error).__name__ if not isinstance(error, urllib.error.URLError) else str(error.reason)


_SENDERS: dict[int, _Sender] = {}
_LOCK = threading.Lock()


def _sender() -> _Sender:
    """This process's own: threads do not come along when a process forks."""
    with _LOCK:
        if os.getpid() not in _SENDERS:
            sender = _SENDERS[os.getpid()] = _Sender()
            atexit.register(sender.part)
        return _SENDERS[os.getpid()]


os.register_at_fork(after_in_child=lambda: globals().update(_LOCK=threading.Lock()))
