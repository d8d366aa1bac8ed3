"""A real S3 server on this machine, SeaweedFS, and a proxy before it that can be made to misbehave."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY, SECRET_KEY = "r1kit", "r1kit-secret"
START_SECONDS = 60


@dataclass(frozen=True)
class S3Server:
    """Where it listens."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """What has boto3 speak to it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self) -> Any:
        return boto3.session.Session().client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1", config=Config(
                s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, max_pool_connections=64,
                request_checksum_calculation="when_required", response_checksum_validation="when_required",
            ),
        )  # fmt: skip


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[S3Server]:
    """A server that keeps its objects in `folder`; killed on leaving."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
    master, volume, filer, s3 = _ports()
    command = [
        str(Path(sys.executable).parent / "weed"), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}",
        "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder / 'identities.json'}",
        "-master.telemetry=false", "-master.volumeSizeLimitMB=16", "-volume.max=2000", "-master.electionTimeout=1s",
        "-master.heartbeatInterval=100ms",
    ]  # fmt: skip
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        server = S3Server(s3)
        _wait(server, process)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # a graceful stop takes a quarter of a minute
        process.wait()


def _wait(server: S3Server, process: subprocess.Popen[bytes]) -> None:
    client, until = server.client(), time.monotonic() + START_SECONDS
    while True:
        try:
            client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="probe", Body=b"x")
            return
        except (BotoCoreError, ClientError) as error:
            assert process.poll() is None, "the S3 server ended"
            if time.monotonic() > until:
                raise TimeoutError("the S3 server does not answer") from error
            time.sleep(0.1)


def _ports() -> list[int]:
    """Free ports that leave room for SeaweedFS's own, which lie 10,000 higher."""
    with contextlib.ExitStack() as held:
        found: list[int] = []
        while len(found) < 4:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1] % 20_000 + 20_000
            with contextlib.suppress(OSError), socket.socket() as low, socket.socket() as high:
                low.bind(("127.0.0.1", port))
                high.bind(("127.0.0.1", port + 10_000))
                if port not in found:
                    found.append(port)
        return found


@dataclass
class Proxy:
    """Passes requests on, but for what it is told to do to writes whose key holds `entries/`."""

    behind: S3Server
    port: int = 0
    mode: str = "honest"
    """`honest`; `ignores`: the condition; `forgets`: says that it stored, and does not; `swaps`: stores other bytes;
    `refuses`: says that it is there already;
    `offline`: closes every connection."""
    lost_answers: int = 0
    """So many writes are stored, and their answer is never given."""
    writes: list[str] = field(default_factory=list)

    @property
    def address(self) -> S3Server:
        return S3Server(self.port)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, *_: Any) -> None:
        pass

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.proxy.mode == "offline":
            self.close_connection = True
        elif self.command != "PUT" or not self._lie(body):
            self._forward(body)

    do_GET = do_PUT = _pass  # noqa: N815 - http.server calls them so

    def _lie(self, body: bytes) -> bool:
        proxy, (bucket, _, key) = self.proxy, self.path.partition("?")[0].lstrip("/").partition("/")
        proxy.writes.append(key)
        if proxy.mode == "ignores":
            proxy.behind.client().put_object(Bucket=bucket, Key=key, Body=body)
        elif proxy.mode == "swaps" and "entries/" in key:
            proxy.behind.client().put_object(Bucket=bucket, Key=key, Body=b"other")
        elif proxy.mode not in ("forgets", "refuses") or "entries/" not in key:
            return False
        self._answer(412 if proxy.mode == "refuses" else 200, {"ETag": '"0"'}, b"")
        return True

    def _forward(self, body: bytes) -> None:
        behind = http.client.HTTPConnection("127.0.0.1", self.proxy.behind.port, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        behind.request(self.command, self.path, body, headers)
        answer = behind.getresponse()
        content = answer.read()
        behind.close()
        if self.command == "PUT" and "entries/" in self.path and self.proxy.lost_answers:
            self.proxy.lost_answers -= 1
            self.close_connection = True
            return
        kept = ("etag", "content-type", "last-modified")
        self._answer(answer.status, {k: v for k, v in answer.getheaders() if k.lower() in kept}, content)

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def misbehaving(server: S3Server) -> Iterator[Proxy]:
    """A proxy before the server."""
    proxy = Proxy(server)
    listener = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    listener.daemon_threads = True
    proxy.port = listener.server_address[1]
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield proxy
    finally:
        listener.shutdown()
        listener.server_close()
