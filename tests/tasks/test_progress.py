"""What a person sees: every stage's beginning and end, and an estimate that makes sense."""

import io
import threading
import time

import pytest

from tasks import progress
from tasks.progress import Progress, duration


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (4.24, "4.2 s"), (59.9, "59.9 s"), (59.97, "1:00"), (60, "1:00"), (187, "3:07"), (3599.7, "1:00:00"),
     (7800, "2:10:00")],
)  # fmt: skip
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_off_a_terminal_it_writes_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    with Progress(stream) as shown:
        shown.begin("zero")
        shown.step("zero", 1, 4, {"reward": 0.5, "loss": 0.1, "other": 3.0})
        time.sleep(0.05)
        shown.step("zero", 2, 4, {"reward": 0.75})
        shown.say("zero", "nearly there")
        shown.end("zero", "ran", 61, "as expected")
        shown.end("base", "cached", 3)
    assert "\x1b" not in stream.getvalue()
    begun, first, second, said, ended, cached = lines(stream)
    assert "zero" in begun and "starts" in begun
    assert "1/4 · reward 0.5 · loss 0.1" in first and "left" not in first, "one step is no rate"
    assert "2/4 · reward 0.75" in second and "left" in second
    assert "nearly there" in said
    assert all(part in ended for part in ("zero", "ran", "1:01", "as expected"))
    assert "cached" in cached and "3.0 s" not in cached, "what was not run took no time"


def test_lines_of_a_stage_keep_their_distance() -> None:
    stream = io.StringIO()
    with Progress(stream) as shown:
        shown.begin("zero")
        for step in range(1, 1001):
            shown.step("zero", step, 1000, {})
    assert len(lines(stream)) == 2


def test_the_estimate_follows_the_rate_and_starts_anew_with_a_new_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = Progress(io.StringIO())

    def left(step: int, total: int, after: float) -> float | None:
        now[0] += after
        shown.step("zero", step, total, {})
        return shown._lines["zero"].left_seconds()

    assert left(5, 20, 0) is None, "resumed at step 5"
    assert left(10, 20, 10) == pytest.approx(20)
    assert left(20, 20, 20) == pytest.approx(0)
    assert left(1, 50, 5) is None, "another count"
    assert left(11, 50, 20) == pytest.approx(78)


def test_quiet_says_nothing_and_several_threads_may_speak() -> None:
    stream = io.StringIO()
    with Progress(stream, quiet=True) as shown:
        threads = [
            threading.Thread(target=lambda n=n: [shown.step(f"stage-{n}", s, 100, {"loss": 1.0}) for s in range(100)])
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        shown.end("stage-0", "failed", 1)
    assert stream.getvalue() == ""


def test_brackets_in_messages_are_no_markup() -> None:
    stream = io.StringIO()
    with Progress(stream) as shown:
        shown.say("zero", "[red]not red[/] and [/nothing")
    assert "[red]not red[/] and [/nothing" in stream.getvalue()
