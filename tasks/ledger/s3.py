"""The ledger on S3: one object an entry, created under If-None-Match, so that writers anywhere get one order.

A store is not taken at its word. Before the first write it must show that it heeds the condition, and what was
written is read back. Every entry is unlike any other, so a write whose answer was lost is recognised by its bytes.
"""

import contextlib
import functools
import itertools
import os
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlparse

from tasks.ledger.folder import DIGITS, Shelf, file_name, number_of

if TYPE_CHECKING:
    from botocore.client import BaseClient

T = TypeVar("T")

CONNECT_SECONDS, ANSWER_SECONDS, ATTEMPTS = 5, 10, 4
READERS = 16
"""Requests at once where many objects are read."""
PROBE = "condition-probe"
"""The object on which a store shows that it heeds If-None-Match."""
_TURNS: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
_HEEDED: set[str] = set()
"""Addresses that have shown it to this process."""


class Said(Enum):
    """What a store answers to a write."""

    STORED = "stored"
    TAKEN = "taken"
    UNSURE = "unsure"
    """Taken, but an attempt before this one had no answer: it may be our own that is there."""


class StoreUnfit(ValueError):
    """A store that does not keep what it says."""


class StoreOffline(ValueError):
    """A store that does not answer."""


class S3Store:
    """`s3://bucket/prefix`; entries, checkpoints and packs below the prefix. Credentials are boto3's."""

    remote = True

    def __init__(self, address: str) -> None:
        parsed = urlparse(address)
        if parsed.scheme != "s3" or not parsed.netloc:
            raise ValueError(f"the ledger's address {address!r} is not of the form s3://bucket/prefix; set R1_LEDGER")
        self.bucket, self.prefix = parsed.netloc, parsed.path.strip("/")
        self.address = f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def numbers(self, shelf: Shelf, after: int = 0) -> list[int]:
        """The numbers of a shelf after `after`, a thousand a request."""
        folder, found = self._key(shelf, ""), []
        start = self._key(shelf, f"{after:0{DIGITS}d}~") if after else folder
        while True:
            answer = self._ask(functools.partial(self._page, folder, start), f"listing {folder}")
            keys = [item["Key"] for item in answer.get("Contents", ())]
            found += [n for key in keys if (n := number_of(shelf, key.removeprefix(folder))) and n > after]
            if not keys or not answer.get("IsTruncated"):
                return sorted(found)
            start = keys[-1]

    def _page(self, folder: str, start: str, client: Any) -> Mapping[str, Any]:
        return client.list_objects_v2(Bucket=self.bucket, Prefix=folder, StartAfter=start)

    def read(self, shelf: Shelf, number: int) -> bytes | None:
        """An object's bytes; None if there is none."""
        return self._get(self._key(shelf, file_name(shelf, number)))

    def read_many(self, shelf: Shelf, numbers: Iterable[int]) -> Iterator[bytes | None]:
        """The bytes of many objects, in order, several at once."""
        wanted = list(numbers)
        with ThreadPoolExecutor(READERS) as readers:
            for start in range(0, len(wanted), 1000):
                yield from readers.map(lambda number: self.read(shelf, number), wanted[start : start + 1000])

    def create(self, shelf: Shelf, number: int, content: bytes) -> bool:
        """Create an object if there is none, and read it back. Says whether it did.

        Raises StoreUnfit where the store does not keep what it says, StoreOffline where it does not answer.
        """
        self._probe()
        key = self._key(shelf, file_name(shelf, number))
        said = self._put(key, content)
        if said is Said.TAKEN:
            return False
        found = self._get(key)
        if found == content:
            return True
        if said is Said.UNSURE and found is not None:
            return False
        what = "does not have it" if found is None else "holds other bytes there"
        raise StoreUnfit(
            f"{self.address} said that it stored {key}, and {what}; nothing can be proved with a ledger there, "
            "so keep it in another store (R1_LEDGER)"
        )

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Threads of one process wait for one another; processes race, and the store decides."""
        with _TURNS[self.address]:
            yield

    def title(self, shelf: Shelf, number: int) -> str:
        """The object's address."""
        return f"s3://{self.bucket}/{self._key(shelf, file_name(shelf, number))}"

    def _key(self, shelf: str, name: str) -> str:
        return f"{self.prefix}/{shelf}/{name}".lstrip("/")

    def _probe(self) -> None:
        """Have the store refuse to create an object twice, once a process. Raises StoreUnfit if it does not."""
        if self.address in _HEEDED:
            return
        key = f"{self.prefix}/{PROBE}".lstrip("/")
        if all(self._put(key, uuid.uuid4().bytes) is Said.STORED for _ in range(2)):
            raise StoreUnfit(
                f"{self.address} ignores the condition If-None-Match, so that two writers could take the same place; "
                "keep the ledger in a store that heeds it, or in a local folder (R1_LEDGER)"
            )
        _HEEDED.add(self.address)

    def _put(self, key: str, content: bytes) -> Said:
        """Create an object if there is none; what the store says of it."""
        from botocore.exceptions import ClientError

        attempts = itertools.count()

        def put(client: Any) -> Said:
            attempt = next(attempts)
            try:
                client.put_object(Bucket=self.bucket, Key=key, Body=content, IfNoneMatch="*")
            except ClientError as error:
                if _status(error) != 412:
                    raise
                return Said.TAKEN if attempt == 0 else Said.UNSURE
            return Said.STORED

        return self._ask(put, f"writing {key}")

    def _get(self, key: str) -> bytes | None:
        from botocore.exceptions import ClientError

        def get(client: Any) -> bytes | None:
            try:
                return client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                    return None
                raise

        return self._ask(get, f"reading {key}")

    def _ask(self, call: Callable[[Any], T], doing: str) -> T:
        """What the store answers, asked several times where it does not. Raises ValueError, one sentence."""
        from botocore.exceptions import BotoCoreError, ClientError

        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call(_client())
            except (BotoCoreError, ClientError) as error:
                if attempt == ATTEMPTS or not _may_pass(error):
                    raise self._explained(error, doing) from None
            time.sleep(random.uniform(0, 0.1 * 2**attempt))
        raise AssertionError("the last attempt returns or raises")

    def _explained(self, error: Exception, doing: str) -> ValueError:
        """One sentence, with the way out."""
        from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError

        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return ValueError(
                f"{self.address} needs credentials ({error}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        code = str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""
        if code == "NoSuchBucket":
            return ValueError(f"{self.address}: there is no such bucket; make it, or correct R1_LEDGER")
        if isinstance(error, ClientError) and not _may_pass(error):
            return ValueError(
                f"{self.address} does not allow {doing} ({code or _status(error)}); the ledger needs s3:ListBucket, "
                "s3:GetObject and s3:PutObject there"
            )
        return StoreOffline(
            f"{self.address} does not answer ({code or type(error).__name__} while {doing}); "
            "run the same command again when it does"
        )


def _may_pass(error: Exception) -> bool:
    """Whether the same request may be answered later."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        return _status(error) in (408, 409, 429) or _status(error) >= 500  # 409: two conditional writes met
    lost = exceptions.ConnectionError | exceptions.HTTPClientError | exceptions.IncompleteReadError
    return isinstance(error, lost)


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _client() -> "BaseClient":
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
    endpoint = next((value for name in names if (value := os.environ.get(name))), None)
    return _client_of(os.getpid(), endpoint)


@functools.cache
def _client_of(_process: int, endpoint: str | None) -> "BaseClient":
    """A client of this process: connections must not be shared with a process that was forked."""
    import boto3.session
    from botocore.config import Config

    session = boto3.session.Session()
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=ANSWER_SECONDS,
        max_pool_connections=2 * READERS,
        retries={"total_max_attempts": 1},  # asking again is our own business, see _ask
        request_checksum_calculation="when_required",  # other stores than Amazon's stumble over them
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    return session.client("s3", endpoint_url=endpoint, config=config, region_name=session.region_name or "us-east-1")
