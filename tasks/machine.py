"""The machine a stage runs on: torch threads and verifier processes, sized to what is free."""

import os

from r1kit.config import RuntimeConfig
from r1kit.rewards import VerifierPool


def prepare_torch(runtime: RuntimeConfig) -> int:
    """Set torch's threads for this process, make its operations deterministic, and say how trainings are shared out.

    Returns:
        The number of threads.
    """
    import torch

    from r1kit import memory, parallel

    memory.keep_freed()
    threads = int(os.environ.get("R1_THREADS", "0")) or runtime.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    parallel.use(parallel.Layout(runtime.zero_stage, runtime.activation_checkpointing))
    return threads


def verifier_pool(runtime: RuntimeConfig) -> VerifierPool:
    """Worker processes that check answers."""
    return VerifierPool(runtime.verifier_workers, runtime.verifier_deadline_seconds)
