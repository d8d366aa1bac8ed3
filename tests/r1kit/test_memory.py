"""What a tensor freed serves the next one, so that the kernel need not hand out pages again.

torch for CPUs comes for Linux with glibc, which this is about.
"""

import subprocess
import sys

FAULTS = """
import resource, torch
from r1kit import memory

def usage():
    return resource.getrusage(resource.RUSAGE_SELF)

def faults(megabytes):
    before = usage().ru_minflt
    for _ in range(20):
        together = [torch.ones(megabytes << 18) for _ in range(3)]
        del together
    return usage().ru_minflt - before

assert memory.keep_freed()
faults(20), faults(31)
peak = usage().ru_maxrss
print(faults(20), faults(31), usage().ru_maxrss - peak, faults(64))
"""


def test_freed_memory_is_used_again_without_page_faults_and_does_not_grow() -> None:
    told = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    small, most, grown, beyond = map(int, told.split())
    assert small < 20 * 3 * 20 * 256 / 100  # of 256 pages a MiB
    assert most < 20 * 3 * 31 * 256 / 100
    assert grown < 64 << 10  # KiB
    assert beyond > 20 * 3 * 64 * 256 * 0.9  # too large: given back at once
