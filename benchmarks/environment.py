"""Environments for rivals: outside the repository, built once from a file of pins."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python_of(pins: Path) -> Path:
    """The Python of an environment that holds exactly `pins`, built on first use (a minute or two).

    It lies in `bench_home()`, under a name that changes with the pins.
    """
    digest = hashlib.sha256(pins.read_bytes() + (ROOT / "requirements.lock").read_bytes()).hexdigest()[:12]
    folder = bench_home() / f"{pins.stem}-{digest}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.is_file():
        print(f"setting up the environment of {pins.name}: a minute or two, once", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", str(pins)],
            check=True,
        )
        ready.touch()
    return python


def bench_home() -> Path:
    """Where benchmarks keep what they fetch and build: `R1_BENCH_HOME`, by default in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "r1kit" / "rivals"
    return Path(os.environ.get("R1_BENCH_HOME", cache))
