"""What the code runs on: processor, cores, memory, accelerators. Read from the system, without loading torch."""

import os
import platform
from pathlib import Path

_CPU_INFO, _GPUS = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/gpus")


def hardware() -> dict[str, str]:
    """Names and numbers, as the ledger keeps them; empty where the system does not tell."""
    return {
        "processor": _processor(),
        "cores": str(_cores()),
        "memory_gib": _memory_gib(),
        "accelerators": ", ".join(_accelerators()),
    }


def _processor() -> str:
    return _field(_CPU_INFO, "model name") or platform.processor()


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0


def _memory_gib() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f}"
    except (ValueError, OSError):
        return ""


def _accelerators() -> list[str]:
    """Names of the NVIDIA GPUs that the driver shows, one a card."""
    cards = sorted(_GPUS.glob("*/information")) if _GPUS.is_dir() else []
    return [_field(card, "Model") or "NVIDIA GPU" for card in cards]


def _field(file: Path, name: str) -> str:
    """The first `name : value` line of a file of the kernel's."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() == name), "")
