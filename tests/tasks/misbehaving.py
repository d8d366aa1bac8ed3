"""A stage that does as it is told. Processes find it as `tasks.misbehaving` once its orders are unpickled there."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tasks.stage import StageContext, StageOutput

sys.modules["tasks.misbehaving"] = sys.modules[__name__]


@dataclass(frozen=True)
class Orders:
    """Stands in the place of the configuration."""

    what: str


def run(context: StageContext) -> StageOutput:
    """Do it."""
    context.log(1, 2, {"loss": 0.5})
    context.say("half way")
    misdeed = MISDEEDS.get(context.config.what)  # pyright: ignore[reportAttributeAccessIssue]
    if misdeed:
        misdeed(context.workdir)
    context.log(2, 2, {"loss": 0.25})
    made = context.workdir / "made"
    made.write_text(os.environ["OMP_NUM_THREADS"])
    details = {"lambda": lambda: 0} if context.config.what == "return nonsense" else {}  # pyright: ignore
    return StageOutput({"made": ("table", made)}, {"loss": 0.25}, details)


def refuse(_: Path) -> None:
    raise ValueError("zero.steps is too small")


def fail(_: Path) -> None:
    raise KeyError("no such key")


def fill_the_disk(_: Path) -> None:
    with Path("/dev/full").open("w") as file:
        file.write("x")


def hang(workdir: Path) -> None:
    (workdir / "pid").write_text(str(os.getpid()))
    time.sleep(600)


def in_rank_1(misdeed: Callable[[Path], object]) -> Callable[[Path], None]:
    """One rank does it while the others wait for all."""

    def act(workdir: Path) -> None:
        from r1kit import parallel

        if parallel.rank() == 1:
            misdeed(workdir)
        parallel.exchange(None)

    return act


def hang_together(workdir: Path) -> None:
    (workdir / f"pid-{os.environ['RANK']}").write_text(f"{os.getpid()} {os.getppid()}\n")
    in_rank_1(lambda _: time.sleep(600))(workdir)


MISDEEDS: dict[str, Callable[[Path], object]] = {
    "refuse": refuse,
    "fail": fail,
    "miss a file": lambda _: Path("/no/such/file").read_text(),
    "fill the disk": fill_the_disk,
    "exit": lambda _: sys.exit(3),
    "vanish": lambda _: os._exit(4),
    "be killed": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "crash": lambda _: os.kill(os.getpid(), signal.SIGSEGV),
    "hang": hang,
    "hang together": hang_together,
    "fail in rank 1": in_rank_1(fail),
    "be killed in rank 1": in_rank_1(lambda _: os.kill(os.getpid(), signal.SIGKILL)),
}
