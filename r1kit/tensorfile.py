"""Tensors in one safetensors file, written without a copy in memory and hashed as they pass."""

import hashlib
import json
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_ALIGNMENT = 8
_CHUNK_BYTES = 1 << 20  # hashed and written while it is in the processor's cache


def write(path: Path, tensors: Mapping[str, Tensor]) -> tuple[str, int]:
    """Write tensors, those on an accelerator one after another through main memory.

    The format is safetensors' (https://huggingface.co/docs/safetensors): the header's length in 8 bytes, the header in
    JSON, the numbers. Tensors that share storage are written each in full.

    Returns:
        sha256 of the file, in hexadecimal digits, and its size in bytes.

    Raises:
        OSError: as the file system does; what was written so far is left there.
    """
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # keeps all aligned
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    digest = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for part in (struct.pack("<Q", len(text)), text, *(tensor for _, tensor in ordered)):
            view = memoryview(part) if isinstance(part, bytes) else _bytes_of(part)
            while view:
                written = file.write(view[:_CHUNK_BYTES])
                digest.update(view[:written])
                view = view[written:]
    return digest.hexdigest(), 8 + len(text) + end


def read(path: Path, size_bytes: int, sha256: str) -> dict[str, Tensor]:
    """The tensors of a file, as views of it: they take no memory but the operating system's cache.

    Raises:
        ValueError: where the file is not the one that had this size and this sha256.
        OSError: where it cannot be read.
    """
    found = path.stat().st_size
    if found != size_bytes:
        raise ValueError(f"{path.name} has {found} bytes, not {size_bytes}")
    with path.open("rb", buffering=0) as file:
        # Hashed by reading: a sector that cannot be read is an error here, and would be a signal in a mapping.
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise ValueError(f"{path.name} does not hold the bytes that were written")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    (length,) = struct.unpack("<Q", mapped[:8])
    header = json.loads(mapped[8 : 8 + length])
    data = torch.frombuffer(mapped, dtype=torch.uint8)[8 + length :]
    return {
        name: data[slice(*entry["data_offsets"])].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
    }


def _bytes_of(tensor: Tensor) -> memoryview:
    """A CPU tensor's own memory; a copy only where it is elsewhere or not contiguous."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
