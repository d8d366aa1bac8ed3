"""Many processes that train one model: which one this is, what its share is, and what all of them know.

A launcher (torchrun, DeepSpeed's) starts the processes; `join` brings them together. Every process runs the same code,
and where one reaches a function here that gathers something, all must. Alone, a process is rank 0 of 1 and nothing is
sent anywhere.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeVar

import torch
from torch import distributed, nn

T = TypeVar("T")
ZeroStage = Literal[0, 1, 2, 3]
_BUCKET_NUMBERS = 2**25


@dataclass(frozen=True)
class Layout:
    """How the processes share a training out."""

    zero_stage: ZeroStage = 0
    """What DeepSpeed's ZeRO shares out (arXiv 1910.02054): 1 the optimizer's state, 2 gradients too, 3 weights too;
    0 nothing, each process holds all and the gradients are summed."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""


_layout = Layout()
_talk: distributed.ProcessGroup | None = None  # on the CPU, for everything but gradients and weights


def use(layout: Layout) -> None:
    """Share the trainings of this process out so from now on; the same in each process."""
    global _layout
    _layout = layout


def join(timeout_seconds: float = 7200.0) -> None:
    """Join the processes that the launcher started, by the variables that it set (RANK, WORLD_SIZE, MASTER_ADDR ...).

    Args:
        timeout_seconds: how long one waits for another, which may still be sampling, before it gives up.
    """
    global _talk
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(local)
    timeout = timedelta(seconds=timeout_seconds)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=timeout)
    talk = distributed.new_group(backend="gloo", timeout=timeout)
    assert isinstance(talk, distributed.ProcessGroup), "this process belongs to it"
    _talk = talk


def leave() -> None:
    """Be alone again."""
    global _talk
    _talk = None
    distributed.destroy_process_group()


def layout() -> Layout:
    """How this process shares its trainings with others."""
    return _layout


def rank() -> int:
    """Number of this process, from 0; number 0 alone writes and tells."""
    return distributed.get_rank() if _talk is not None else 0


def world_size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if _talk is not None else 1


def mine(items: Sequence[T]) -> list[T]:
    """This process's share: every world-size-th item, from its rank on. `collect` brings the results together."""
    return list(items[rank() :: world_size()])


def collect(results: Sequence[T]) -> list[T]:
    """The results of all processes in the order of the items that `mine` gave out; each process gets all."""
    return merge(exchange(list(results)))


def merge(shares: Sequence[Sequence[T]]) -> list[T]:
    """What was dealt out, in its order again."""
    return [shares[place % len(shares)][place // len(shares)] for place in range(sum(map(len, shares)))]


def share(items: Sequence[T]) -> list[tuple[T, float]]:
    """This process's share of the passes of an optimizer step; see `deal`."""
    return deal(items, rank(), world_size())


def deal(items: Sequence[T], rank: int, world_size: int) -> list[tuple[T, float]]:
    """One process's share of the passes of an optimizer step: as many as each of the others has.

    ZeRO gathers weights and shares gradients out in every pass, so all processes must make the same number of them.
    Where the items do not come out even, some compute one that is not theirs, with weight 0.

    Returns:
        (item, weight) pairs: a pass's loss and its sums are to be multiplied by the weight, 1 or 0.
    """
    own = [(item, 1.0) for item in items[rank::world_size]]
    rounds = -(-len(items) // world_size)
    return own + [(items[0], 0.0) for _ in range(rounds - len(own))]


def exchange(value: T) -> list[T]:
    """The values of all processes, by rank."""
    if _talk is None:
        return [value]
    values: list[T | None] = [None] * world_size()
    distributed.all_gather_object(values, value, group=_talk)
    return values  # pyright: ignore[reportReturnType]


def total(sums: Mapping[str, float]) -> dict[str, float]:
    """Sums over all processes; each has the same names."""
    if _talk is None:
        return dict(sums)
    values = torch.tensor(list(sums.values()), dtype=torch.float64)
    distributed.all_reduce(values, group=_talk)
    return dict(zip(sums, values.tolist(), strict=True))


def agree(what: str, value: object) -> None:
    """Make sure that all processes have the same value.

    Raises:
        ValueError: where they have not, with both.
    """
    values = exchange(value)
    for number, other in enumerate(values):
        if other != values[0]:
            raise ValueError(f"{what} is {values[0]} on rank 0 but {other} on rank {number}: give all the same files")


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Make every parameter's gradient the sum of all processes'; one that has none anywhere stays without.

    All processes have the same parameters, in the same order.
    """
    if _talk is None:
        return
    every = list(parameters)
    present = torch.tensor([float(p.grad is not None) for p in every])
    distributed.all_reduce(present, group=_talk)
    touched = [p for p, count in zip(every, present.tolist(), strict=True) if count]
    for bucket in _buckets(touched):
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
        distributed.all_reduce(flat)
        for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            parameter.grad = part.view_as(parameter).clone()


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Runs of parameters of about `_BUCKET_NUMBERS`, to be sent together."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and sum(p.numel() for p in bucket) + parameter.numel() > _BUCKET_NUMBERS:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
