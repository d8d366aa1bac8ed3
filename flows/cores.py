"""How the processor's cores are shared between the main stage of a run and those beside it."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r1kit.config import Config
from tasks.isolated import StageStopped


class Cores:
    """Shares the cores out: stages beside the main one run on what it leaves, on all while it waits."""

    def __init__(self, num_cores: int, main_threads: int, threads_alone: int) -> None:
        self.num_cores, self.main_threads, self.threads_alone = num_cores, main_threads, threads_alone
        self._beside = 0
        self._main = 0
        self._stopped = False
        self._changed = threading.Condition()

    @property
    def room_beside(self) -> bool:
        """Whether anything can run beside the main stage."""
        return self.num_cores > self.main_threads

    @contextmanager
    def main(self, *, alone: bool) -> Iterator[None]:
        """While the main stage runs: on its share of the cores, or alone on all that it may have."""
        self._main = self.threads_alone if alone else self.main_threads
        os.environ["R1_THREADS"] = str(self._main)
        try:
            yield
        finally:
            with self._changed:
                self._main = 0
                self._changed.notify_all()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """One core for a stage beside the main one; waits until there is one. Raises StageStopped after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._beside + self._main < self.num_cores)
            if self._stopped:
                raise StageStopped("the run is ending")
            self._beside += 1
        try:
            yield
        finally:
            with self._changed:
                self._beside -= 1
                self._changed.notify_all()

    def stop(self) -> None:
        """Give out no more: whoever waits for a core is sent away."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


def cores_for(config: Config) -> Cores:
    """How many threads the main stage gets: runtime.threads, else all cores but a quarter for what runs beside.

    With an accelerator, or several processes to a stage, nothing runs beside: they would share memory and cores.
    """
    num_cores = len(os.sched_getaffinity(0))
    shared = Path("/dev/nvidia0").exists() or config.runtime.launched or num_cores == 1
    beside = 0 if shared else max(1, num_cores // 4)
    most = min(config.runtime.threads or num_cores, num_cores)
    return Cores(num_cores, min(config.runtime.threads or num_cores - beside, num_cores), most)
