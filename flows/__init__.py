"""What runs after what, and when; the command line."""

import os
import statistics
import time
from pathlib import Path


def _running_elsewhere() -> int:
    """How many threads of other processes are at work, by a few looks at the kernel's count; 0 where it keeps none."""
    load = Path("/proc/loadavg")
    if not load.exists():
        return 0
    looks = []
    for _ in range(5):
        looks.append(int(load.read_text().split()[3].partition("/")[0]) - 1)  # without this one
        time.sleep(0.002)
    return int(statistics.median(looks))


# Threads that wait for one another spin first, by default for milliseconds. Where all cores are free, a step on two of
# them is a fifth faster for it; where another process takes one, twice as slow as with three thousand turns. OpenMP
# reads this once, when torch is first imported.
if (os.cpu_count() or 1) < len(os.sched_getaffinity(0)) + _running_elsewhere():
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# A stage shows its own progress; libraries' bars would tear it. Read when tqdm is first imported.
os.environ.setdefault("TQDM_DISABLE", "1")
