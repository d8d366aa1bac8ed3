"""One optimizer step: gradients in, weights changed, learning rate and clipping applied."""

import bisect
import contextlib
import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from r1kit import parallel
from r1kit.ragged import attention_by, base_model

Log = Callable[[int, int, Mapping[str, float]], None]
"""log(step, total steps, metrics): how a training tells the world about itself."""


class OptimizerConfig(Protocol):
    """What the engine reads of a training's configuration."""

    @property
    def learning_rate(self) -> float:
        """Peak step size."""
        ...

    @property
    def weight_decay(self) -> float:
        """AdamW's, decoupled."""
        ...

    @property
    def adam_betas(self) -> tuple[float, float]:
        """AdamW's two decay rates."""
        ...

    @property
    def max_gradient_norm(self) -> float:
        """Longer gradients are scaled down to this norm."""
        ...


class Engine:
    """AdamW over one model that this process holds whole. Of several processes each computes the gradients of its share
    of an optimizer step, and they are summed; so a loss is divided by what the whole step has, not by the share's.

    State that a resumed training needs is `tensors()`; everything else is a function of the step.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig) -> None:
        self.model = model
        """What training passes are computed with."""
        self._max_norm = config.max_gradient_norm
        self._parameters = dict(unique_parameters(model))
        # A small step would be lost in the 8 bits of bfloat16: it is made on a copy in float32.
        self._masters = {
            name: p if p.dtype == torch.float32 else nn.Parameter(p.detach().float())
            for name, p in self._parameters.items()
        }
        self._optimizer = adamw(self._masters.values(), config)
        if parallel.layout().activation_checkpointing:
            checkpoint_activations(model)

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradient to that of the step. Each process must do so as often as the others."""
        loss.backward()
        for name, parameter in self._parameters.items():
            master = self._masters[name]
            if master is not parameter and parameter.grad is not None:
                master.grad = parameter.grad.float() if master.grad is None else master.grad.add_(parameter.grad)
                parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> float:
        """Apply the gathered gradients.

        Returns:
            The gradient's norm before clipping. Where it is not finite nothing is changed.
        """
        parallel.sum_gradients(self._masters.values())
        norm = float(nn.utils.clip_grad_norm_(self._masters.values(), self._max_norm))
        if math.isfinite(norm):
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._optimizer.step()
            self._copy_masters()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """Weights and optimizer moments by name, in float32 and whole, however many processes share them. All must
        call it; only rank 0 need get anything."""
        result: dict[str, Tensor] = {f"weights.{name}": parameter for name, parameter in self._masters.items()}
        for name, parameter in self._masters.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                result[f"optimizer.{key}.{name}"] = value
        return result

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors()` gave, with as many processes and whatever ZeRO stage."""
        for name, parameter in self._masters.items():
            parameter.copy_(tensors[f"weights.{name}"])
            for key in ("step", *MOMENTS):
                if f"optimizer.{key}.{name}" in tensors:
                    value = tensors[f"optimizer.{key}.{name}"]
                    self._optimizer.state[parameter][key] = value.to(parameter).clone()
        self._copy_masters()

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """While this lasts, the model that the engine was made with holds all its weights, and can be sampled."""
        yield

    def finish(self) -> None:
        """Leave the trained weights in the model that the engine was made with."""

    def frozen_copy(self) -> nn.Module:
        """A copy of the model as it is now, to compare with: the reference."""
        return copy.deepcopy(self.model).eval().requires_grad_(False)

    @torch.no_grad()
    def renew(self, frozen: nn.Module) -> None:
        """Set a frozen copy to the weights as they are now."""
        frozen.load_state_dict(self.model.state_dict())

    def frozen_tensors(self, frozen: nn.Module) -> dict[str, Tensor]:
        """A frozen copy's weights by name, whole. All processes must call it."""
        return dict(frozen.named_parameters())

    @torch.no_grad()
    def load_frozen(self, frozen: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `frozen_tensors` gave."""
        for name, parameter in frozen.named_parameters():
            parameter.copy_(tensors[name])

    @torch.no_grad()
    def _copy_masters(self) -> None:
        for name, parameter in self._parameters.items():
            if self._masters[name] is not parameter:
                parameter.copy_(self._masters[name])


MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's running means of the gradient and of its square."""


def open_engine(model: nn.Module, config: OptimizerConfig) -> Engine:
    """The engine for as many processes as there are, and the ZeRO stage of their layout."""
    if parallel.layout().zero_stage == 0:
        return Engine(model, config)
    from r1kit.zero import ZeroEngine  # DeepSpeed takes seconds to import

    return ZeroEngine(model, config)


def adamw(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves vectors alone."""
    matrices, vectors = [], []
    for parameter in parameters:
        (matrices if parameter.ndim > 1 else vectors).append(parameter)
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.adam_betas, eps=1e-8, fused=True)


def checkpoint_activations(model: nn.Module) -> None:
    """Have the backward pass compute each layer's activations again, by the attention of the forward pass."""
    module = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
    body = base_model(module)

    def as_before() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
        return contextlib.nullcontext(), attention_by(body, body.config._attn_implementation or "eager")

    module.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": as_before})


def unique_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Trainable parameters, tied ones once, in the model's own order."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def learning_rate(
    step: int,
    total: int,
    peak: float,
    warmup: int = 0,
    schedule: Literal["cosine", "linear", "constant"] = "constant",
    final_ratio: float = 0.0,
) -> float:
    """Learning rate of step 0 .. total - 1: a linear warm-up, then a decay from peak to peak * final_ratio."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - 1 - warmup)
    if schedule == "cosine":
        return peak * (final_ratio + (1 - final_ratio) * 0.5 * (1 + math.cos(math.pi * progress)))
    if schedule == "linear":
        return peak * (1 - (1 - final_ratio) * progress)
    return peak


def micro_batches(
    lengths: Sequence[int], max_tokens: int, trunks: Sequence[tuple[int, int]] | None = None
) -> list[list[int]]:
    """Split rows into batches of similar length that hold at most `max_tokens`.

    Args:
        lengths: tokens of each row, without what it shares.
        trunks: for each row, a number that names what it shares with others (its prompt) and how many tokens that has:
            they count once a batch, and rows that share stay together where they can.

    Returns:
        Lists of row indices, shortest rows first; a single longer row still gets a batch of its own.
    """
    shared = trunks or [(row, 0) for row in range(len(lengths))]
    longest: dict[int, int] = {}
    whole: dict[int, int] = {}
    for length, (name, trunk) in zip(lengths, shared, strict=True):
        longest[name] = max(length, longest.get(name, 0))
        whole[name] = whole.get(name, trunk) + length
    batches: list[list[int]] = []
    held: set[int] = set()
    tokens = 0
    for row in sorted(range(len(lengths)), key=lambda row: (longest[shared[row][0]], shared[row][0], lengths[row])):
        name, trunk = shared[row]
        needed = lengths[row] + (0 if name in held else trunk)
        if name not in held and whole[name] <= max_tokens:
            needed = whole[name]  # room for all that share it
        if not batches or tokens + needed > max_tokens:
            batches.append([])
            held, tokens = set(), 0
        batches[-1].append(row)
        tokens += lengths[row] + (0 if name in held else trunk)
        held.add(name)
    return batches


def shared_micro_batches(
    lengths: Sequence[int], max_tokens: int, trunks: Sequence[tuple[int, int]] | None = None
) -> list[tuple[list[int], float]]:
    """This process's share of a step's micro-batches, as (row indices, weight); see `parallel.deal` for the weight."""
    return parallel.share(even_micro_batches(lengths, max_tokens, parallel.world_size(), trunks))


def even_micro_batches(
    lengths: Sequence[int], max_tokens: int, processes: int, trunks: Sequence[tuple[int, int]] | None = None
) -> list[list[int]]:
    """Micro-batches for several processes: as few rounds as `max_tokens` allows, each filled as evenly as can be."""
    batches = micro_batches(lengths, max_tokens, trunks)
    if processes == 1:
        return batches
    places = -(-len(batches) // processes) * processes
    limits = range(1, max_tokens)
    least = bisect.bisect_left(limits, True, key=lambda limit: len(micro_batches(lengths, limit, trunks)) <= places)
    return micro_batches(lengths, least + 1, trunks)
