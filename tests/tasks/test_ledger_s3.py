"""The ledger on a real S3 server: one order for all writers, and a store that misbehaves is found out."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tasks.ledger import Entry, Ledger, open_ledger
from tasks.ledger.s3 import S3Store, StoreOffline, StoreUnfit
from tasks.signing import signing_key
from tasks.workspace import Workspace
from tests.tasks.seaweed import Proxy, S3Server, misbehaving
from tests.tasks.storm import faults, storm

NOTE = Entry(kind="approval", job="approve", status="done")


@pytest.fixture
def shared(workspace: Workspace, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose ledger is in a bucket."""
    monkeypatch.setenv("R1_LEDGER", f"s3://{bucket}/team/ledger")
    return workspace


@pytest.fixture
def proxy(s3_server: S3Server, shared: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What stands between the workspace and its store."""
    with misbehaving(s3_server) as standing:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", standing.address.endpoint)
        yield standing


def test_the_server_heeds_the_condition_when_64_write_at_once(s3_server: S3Server, bucket: str) -> None:
    client, start, won, lost = s3_server.client(), threading.Barrier(64), [], []

    def write(number: int) -> None:
        start.wait()
        try:
            client.put_object(Bucket=bucket, Key="a", Body=str(number).encode(), IfNoneMatch="*")
            won.append(number)
        except ClientError as error:
            lost.append(error.response["ResponseMetadata"]["HTTPStatusCode"])

    writers = [threading.Thread(target=write, args=(number,)) for number in range(64)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(won) == 1 and lost == [412] * 63
    assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == str(won[0]).encode()


def test_the_same_ledger_from_two_workspaces(shared: Workspace, tmp_path: Path) -> None:
    other = Workspace(tmp_path / "other")
    first = open_ledger(shared).append(NOTE)
    second = open_ledger(other).append(NOTE)
    third = open_ledger(shared).append(NOTE)
    assert (second.previous, third.previous) == (first.digest, second.digest)
    for workspace in (shared, other):
        assert list(open_ledger(workspace).entries()) == [first, second, third]
        assert open_ledger(workspace).verify() == []
    assert not shared.ledger_dir.exists()


def test_64_writers_killed_at_random_lose_and_double_nothing(shared: Workspace, tmp_path: Path) -> None:
    signing_key(shared)
    workspaces = [Workspace(tmp_path / f"machine-{number}") for number in range(8)]
    for workspace in workspaces:
        shutil.copytree(shared.keys_dir, workspace.keys_dir)
    assert storm(workspaces, 2, tmp_path / "log", threads=8, kill=4, within=3.0, seed=1) > 0
    assert faults(shared, tmp_path / "log") == []
    assert len(open_ledger(shared).entries()) >= 4 * 8 * 2


def test_a_listing_longer_than_a_page_is_read_whole(s3_server: S3Server, bucket: str) -> None:
    client, store = s3_server.client(), S3Store(f"s3://{bucket}")
    numbers = [*range(1, 1006)]

    def put(part: int) -> None:
        for number in numbers[part::8]:
            client.put_object(Bucket=bucket, Key=f"entries/{number:08d}.json", Body=b"{}")

    writers = [threading.Thread(target=put, args=(part,)) for part in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    client.put_object(Bucket=bucket, Key="entries/notes.txt", Body=b"")
    assert store.numbers("entries") == numbers
    assert store.numbers("entries", 1003) == [1004, 1005] and store.numbers("entries", 1005) == []
    assert store.numbers("packs") == []


def test_what_is_known_is_not_asked_for_again(shared: Workspace, s3_server: S3Server, bucket: str) -> None:
    for _ in range(3):
        open_ledger(shared).append(NOTE)
    before = list(open_ledger(shared).entries())
    s3_server.client().put_object(Bucket=bucket, Key="team/ledger/entries/00000002.json", Body=b"altered")
    assert list(open_ledger(shared).entries()) == before
    assert any("00000002.json cannot be read" in fault for fault in open_ledger(shared).verify())
    assert any("00000002.json cannot be read" in f for f in Ledger(S3Store(f"s3://{bucket}/team/ledger")).verify())


def test_a_long_ledger_comes_in_packs(
    shared: Workspace, s3_server: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workspace that sees it for the first time reads signed packs, and does not believe an altered one."""
    monkeypatch.setattr("tasks.ledger.checkpoint.EVERY", 10)
    for module in ("chain", "proof"):
        monkeypatch.setattr(f"tasks.ledger.{module}.EVERY", 10)
    for _ in range(21):
        open_ledger(shared).append(NOTE)
    before, client = list(open_ledger(shared).entries()), s3_server.client()
    for number, content in ((1, b"altered"), (12, b"altered")):
        client.put_object(Bucket=bucket, Key=f"team/ledger/entries/{number:08d}.json", Body=content)
    for name in ("one", "two"):
        fresh = Workspace(tmp_path / name)
        shutil.copytree(shared.keys_dir, fresh.keys_dir)
        if name == "two":
            client.put_object(Bucket=bucket, Key="team/ledger/packs/00000010.jsonl", Body=b"altered\n" * 10)
            with pytest.raises(ValueError, match=r"00000001\.json cannot be read"):
                open_ledger(fresh).entries()
        else:
            assert list(open_ledger(fresh).entries()) == before
    found = "\n".join(open_ledger(shared).verify())
    assert "00000012.json cannot be read" in found and "ledger entry 12 was altered since" in found
    assert "the pack of entries 1 to 10 (s3://" in found


def test_a_lost_answer_does_not_double_an_entry(shared: Workspace, proxy: Proxy) -> None:
    open_ledger(shared).append(NOTE)
    proxy.lost_answers = 2
    recorded = open_ledger(shared).append(NOTE)
    assert proxy.lost_answers == 0 and recorded.sequence == 2
    assert [r.sequence for r in open_ledger(shared).entries()] == [1, 2] and open_ledger(shared).verify() == []
    assert proxy.writes.count("team/ledger/entries/00000002.json") == 3


def test_a_store_that_ignores_the_condition_is_refused(shared: Workspace, proxy: Proxy) -> None:
    proxy.mode = "ignores"
    with pytest.raises(StoreUnfit, match="ignores the condition If-None-Match, so that two writers"):
        open_ledger(shared).append(NOTE)
    assert open_ledger(shared).head().sequence == 0


@pytest.mark.parametrize(("mode", "said"), [("forgets", "does not have it"), ("swaps", "holds other bytes there")])
def test_a_store_that_lies_about_a_write_is_found_out(shared: Workspace, proxy: Proxy, mode: str, said: str) -> None:
    open_ledger(shared).append(NOTE)
    proxy.mode = mode
    with pytest.raises(StoreUnfit, match=f"said that it stored team/ledger/entries/00000002.json, and {said}"):
        open_ledger(shared).append(NOTE)


def test_a_store_that_refuses_what_it_does_not_have_is_found_out(shared: Workspace, proxy: Proxy) -> None:
    open_ledger(shared).append(NOTE)
    proxy.mode = "refuses"
    with pytest.raises(ValueError, match="refuses entry 2 as being there, and does not have it"):
        open_ledger(shared).append(NOTE)


def test_a_store_offline_in_the_middle_is_one_sentence_and_changes_nothing(shared: Workspace, proxy: Proxy) -> None:
    ledger = open_ledger(shared)
    ledger.append(NOTE)
    proxy.mode = "offline"
    for ask in (lambda: ledger.append(NOTE), ledger.verify, open_ledger(shared).entries):
        with pytest.raises(
            StoreOffline, match=r"^s3://\S+ does not answer \(ConnectionClosedError while .*\); run the"
        ):
            ask()
    proxy.mode = "honest"
    assert len(open_ledger(shared).entries()) == 1 and ledger.append(NOTE).sequence == 2
    assert open_ledger(shared).verify() == []


def test_other_refusals_name_the_way_out(shared: Workspace, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1_LEDGER", "s3://no-such-bucket-here/x")
    with pytest.raises(ValueError, match="there is no such bucket; make it, or correct R1_LEDGER"):
        open_ledger(shared).verify()
    for wrong in ("s3://", "gs://bucket/x"):
        monkeypatch.setenv("R1_LEDGER", wrong)
        with pytest.raises(ValueError, match="R1_LEDGER"):
            open_ledger(shared)


def test_a_wrong_key_is_told(shared: Workspace, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://localhost:{s3_server.port}")  # a client of its own
    with pytest.raises(
        ValueError, match=r"does not allow listing .* \(SignatureDoesNotMatch\); the ledger needs s3:List"
    ):
        open_ledger(shared).append(NOTE)
