"""Hunt for a bit that a SIGKILL changes: `make hunt ARGS="--kills 200 --seed 3"`.

The stages zero, reason, prefer, cold_start and reward_models train small models, as the recipe calls them, in processes
that are killed at random instants, half of them inside the write of a checkpoint, and started again until one ends by
itself: a life. What it made must have the digests of an uninterrupted training. Every process is a fork of this one,
which has loaded the libraries and trains nothing itself, so that an attempt costs no import.

Progress goes to stderr; the last line of stdout is one JSON object, which names the parts of a training's state that
kills fell on. Exit status 0 where every digest was equal.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import secrets
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["R1_THREADS"] = "1"

from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.hunted import CONFIG, NUM_PROBLEMS, STAGES, Stage, preload, prepare
from r1kit.grpo_config import GrpoConfig
from tasks.artifacts import digest_directory
from tasks.isolated import end_with_parent
from tasks.stage import StageContext, body_of

_POLL_SECONDS = 0.0003
_READY, _STEP, _UPDATE = b"r", b"s", b"u"


Torn = tuple[str, int, int]
"""A folder of a checkpoint that is being written or removed: path, inode, time of its last change."""


@dataclasses.dataclass
class Attempt:
    """One process at work on a training, and what it told before its end."""

    pid: int
    marks: int
    """Where it writes a letter a step and a letter an optimizer step."""
    errors: Path
    """What it says, and its traceback."""
    started: float = 0.0
    told: bytes = b""
    finished: bool = False

    @property
    def steps(self) -> int:
        """Steps that it finished."""
        return self.told.count(_STEP)

    @property
    def updates(self) -> int:
        """Optimizer steps since the last finished step."""
        return self.told.rpartition(_STEP)[2].count(_UPDATE)

    def listen(self, seconds: float) -> None:
        """Take in what it tells within so many seconds."""
        if select.select([self.marks], [], [], max(0.0, seconds))[0]:
            heard = os.read(self.marks, 4096)
            if not self.told:
                self.started = time.monotonic()
            self.told += heard
            self.finished = not heard

    def end(self, *, kill: bool) -> bool:
        """Kill it, or let it end; whether it died of the kill."""
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        while not self.finished:
            self.listen(60.0)
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.marks)
        if status not in (0, signal.SIGKILL):
            raise RuntimeError(f"a process ended with status {status}: {self.errors} says why")
        return os.WIFSIGNALED(status)


def fork(work: Callable[[int], None], errors: Path) -> Attempt:
    """Run something in a forked process, which ends with this one."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return Attempt(child, reading, errors)
    try:
        os.close(reading)
        end_with_parent()
        with errors.open("a") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        work(writing)
        os._exit(0)
    except BaseException:  # noqa: BLE001  (this process must not go on as if it were its parent)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def train(stage: Stage, inputs: Path, workdir: Path, marks: int) -> None:
    """The stage's body as the recipe runs it. `made.json` holds the digests of what it made."""
    register_optimizer_step_post_hook(lambda *_: _mark(marks, _UPDATE))
    workdir.mkdir(parents=True, exist_ok=True)
    context = StageContext(
        name=stage.title, variant=stage.variant, config=CONFIG, seed=3, key="sha256:0", workdir=workdir,
        cache_dir=workdir, inputs={role: inputs / name for role, name in stage.inputs.items()},
        digests=dict(stage.inputs), log=lambda *_: _mark(marks, _STEP), say=lambda line: print(line, flush=True),
    )  # fmt: skip
    _mark(marks, _READY)
    output = body_of(stage.name).run(context)
    made = {role: digest_directory(path) for role, (_, path) in output.outputs.items()}
    (workdir / "made.json").write_text(json.dumps(made))


def _mark(marks: int, letter: bytes) -> None:
    os.write(marks, letter)


@dataclasses.dataclass(frozen=True)
class Whole:
    """A training that nothing interrupted."""

    digests: Mapping[str, str]
    seconds: float
    write_seconds: float
    """How long a checkpoint was being written."""


class Hunt:
    """The lives of one stage's training.

    Args:
        kills: at least so many in all, half of them inside the write of a checkpoint.
    """

    def __init__(self, stage: Stage, inputs: Path, folder: Path, kills: int, seed: int) -> None:
        self._stage, self._inputs, self._folder, self._kills = stage, inputs, folder / stage.title, kills
        self._folder.mkdir(parents=True)
        self._chance = random.Random(f"{seed}/{stage.title}")
        self.inside = self.outside = self.lives = 0
        self.parts: Counter[str] = Counter()
        """What kills fell on."""
        self.fault = ""
        """What is wrong with the last life; its folder is left."""

    def run(self) -> None:
        """Until there were enough kills of both kinds, or a life ended otherwise than the uninterrupted one."""
        whole = self._whole()
        while not self._over and not self.fault:
            workdir = self._folder / f"life-{self.lives}"
            self.lives += 1
            while not self._over and self._attempt(workdir, whole):
                pass
            if not (workdir / "made.json").is_file():
                self._start(workdir).end(kill=False)
            self._examine(workdir, whole)
            print(f"{self._stage.title}: {self.inside + self.outside} kills, {self.inside} of them inside a write, "
                  f"in {self.lives} lives", file=sys.stderr, flush=True)  # fmt: skip

    @property
    def _over(self) -> bool:
        return min(self.inside, self.outside) >= self._kills / 2

    def _start(self, workdir: Path) -> Attempt:
        attempt = fork(lambda marks: train(self._stage, self._inputs, workdir, marks), _log(workdir))
        attempt.listen(60.0)
        return attempt

    def _whole(self) -> Whole:
        workdir = self._folder / "whole"
        attempt = self._start(workdir)
        writes: list[float] = []
        began = None
        while not attempt.finished:
            attempt.listen(_POLL_SECONDS)
            torn, now = bool(_torn(workdir)), time.monotonic()
            if began is not None and not torn:
                writes.append(now - began)
            began = (began or now) if torn else None
        seconds = time.monotonic() - attempt.started
        attempt.end(kill=False)
        return Whole(json.loads((workdir / "made.json").read_text()), seconds, sorted(writes)[len(writes) // 2])

    def _attempt(self, workdir: Path, whole: Whole) -> bool:
        """Let a process work for a while and kill it; whether it came to that."""
        before, first = _torn(workdir), _last_step(workdir)
        missing_inside = max(0.0, self._kills / 2 - self.inside)
        missing = missing_inside + max(0.0, self._kills / 2 - self.outside)
        attempt = self._start(workdir)
        if self._chance.random() < missing_inside / missing:
            self._wait_for_a_write(attempt, workdir, before, whole)
        elif isinstance(getattr(CONFIG, self._stage.name), GrpoConfig) and self._chance.random() < 0.5:
            self._wait_for_updates(attempt)  # most of the time goes into rollouts
        else:
            self._wait(attempt, whole)
        if not attempt.end(kill=not attempt.finished):
            return False
        torn = _torn(workdir) - before
        self.inside += bool(torn)
        self.outside += not torn
        self.parts.update(_parts(self._stage, attempt, torn, first))
        return True

    def _wait(self, attempt: Attempt, whole: Whole) -> None:
        """Until an instant in half the time of an uninterrupted training."""
        instant = attempt.started + self._chance.uniform(0, whole.seconds / 2)
        while not attempt.finished and time.monotonic() < instant:
            attempt.listen(instant - time.monotonic())

    def _wait_for_updates(self, attempt: Attempt) -> None:
        """Until one of the next optimizer steps."""
        waiting = self._chance.randint(1, 8)
        while not attempt.finished and attempt.told.count(_UPDATE) < waiting:
            attempt.listen(1.0)

    def _wait_for_a_write(self, attempt: Attempt, workdir: Path, before: set[Torn], whole: Whole) -> None:
        """Until one of the next checkpoints is being written, and for a part of the time that takes: most of it is
        waiting for the disk, so that the part is small more often than large."""
        waiting, writing = self._chance.randint(1, 2), False
        while not attempt.finished:
            attempt.listen(_POLL_SECONDS)
            seen = bool(_torn(workdir) - before)
            waiting -= seen and not writing
            writing = seen
            if not waiting:
                time.sleep(whole.write_seconds * self._chance.random() ** 3)
                return

    def _examine(self, workdir: Path, whole: Whole) -> None:
        """Compare what a life made, and read what it said."""
        made, said = json.loads((workdir / "made.json").read_text()), _log(workdir).read_text()
        self.parts["resumed from a checkpoint"] += said.count("goes on after step")
        if made != whole.digests:
            self.fault = f"{workdir} made {made}, not {dict(whole.digests)}"
        elif "torn or altered" in said or "bit-exact" in said:
            self.fault = f"{_log(workdir)} tells of a torn checkpoint, or of other surroundings"
        else:
            shutil.rmtree(workdir)


def _torn(workdir: Path) -> set[Torn]:
    found: set[Torn] = set()
    for path in workdir.glob("checkpoints*/step-*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            found.add((str(path), status.st_ino, status.st_mtime_ns))
    return found


def _last_step(workdir: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    return max((int(path.name[-8:]) for path in workdir.glob("checkpoints*/step-????????")), default=0)


def _log(workdir: Path) -> Path:
    """Where the processes of a life say what they have to say."""
    return workdir.with_suffix(".log")


def _parts(stage: Stage, attempt: Attempt, torn: set[Torn], first: int) -> Iterator[str]:
    """What a kill fell on, in words.

    Args:
        first: the step that the attempt went on after.
    """
    for path, _, _ in torn:
        yield f"checkpoint: {_write_phase(Path(path))}"
    if stage.name == "cold_start" and not first and _UPDATE not in attempt.told:
        yield "R1-Zero's samples being drawn"
    config = getattr(CONFIG, stage.name)
    if isinstance(config, GrpoConfig):
        yield from _parts_of_rl(config, first + attempt.steps, attempt.updates)


def _parts_of_rl(config: GrpoConfig, step: int, updates: int) -> Iterator[str]:
    """What a kill after so many steps, and so many optimizer steps of the next, fell on."""
    if 0 < updates < config.minibatches:
        yield "a half-used rollout"
    elif not updates:
        yield "a rollout being drawn or verified" if step < config.steps else "the finished model being written"
    if step > config.reference_refresh_steps:
        yield "after the reference was refreshed"
    if step * config.prompts_per_step >= NUM_PROBLEMS:
        yield "in the second epoch of the problems"
    if config.preference_last_steps:
        begun = step >= config.steps - config.preference_last_steps
        yield "reward models in use" if begun else "before the reward models are in use"


def _write_phase(folder: Path) -> str:
    if folder.name.endswith(".old.tmp"):
        return "an old one being removed"
    names = {path.name for path in folder.iterdir()}
    if "seal.json" in names:
        return "written, not yet renamed"
    return "state and seal being written" if "state.json" in names else "tensors being written"


def main() -> int:
    """Hunt in every stage asked for."""
    parser = argparse.ArgumentParser(prog="make hunt", description="Kill trainings and compare what they make.")
    parser.add_argument("--kills", type=int, default=20, help="kills a stage (20)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of the instants (a new one)")
    names = [stage.title for stage in STAGES]
    parser.add_argument("--stages", nargs="+", choices=names, default=names, help="which (all)")
    parser.add_argument("--folder", type=Path, help="for what is written (a new one, removed if all is well)")
    options = parser.parse_args()
    stages = [stage for stage in STAGES if stage.title in options.stages]
    folder = Path(tempfile.mkdtemp(prefix="r1kit-hunt-", dir=options.folder))
    print(f"seed {options.seed}, in {folder}", file=sys.stderr, flush=True)
    started = time.monotonic()
    preload()
    inputs = folder / "inputs"
    fork(lambda _: prepare(inputs), folder / "inputs.log").end(kill=False)
    hunts = {stage.title: Hunt(stage, inputs, folder, options.kills, options.seed) for stage in stages}
    for hunt in hunts.values():
        hunt.run()
    faults = [hunt.fault for hunt in hunts.values() if hunt.fault]
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        shutil.rmtree(folder)
    parts = sum((hunt.parts for hunt in hunts.values()), Counter())
    print(json.dumps({
        "hunt": "resume", "equal": not faults, "seed": options.seed, "seconds": round(time.monotonic() - started, 1),
        "kills": sum(hunt.inside + hunt.outside for hunt in hunts.values()),
        "kills_inside_a_write": sum(hunt.inside for hunt in hunts.values()),
        "lives": sum(hunt.lives for hunt in hunts.values()), "faults": faults,
        "stages": {name: {"kills": hunt.inside + hunt.outside, "kills_inside_a_write": hunt.inside, "lives": hunt.lives}
                   for name, hunt in hunts.items()},
        "parts": dict(parts.most_common()),
    }))  # fmt: skip
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
