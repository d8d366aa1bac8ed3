"""An engine whose optimizer state, gradients and weights DeepSpeed's ZeRO shares out (arXiv 1910.02054)."""

import contextlib
import copy
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from r1kit import parallel
from r1kit.engine import MOMENTS, Engine, OptimizerConfig, adamw, checkpoint_activations, unique_parameters

# Told what it would find anyway, DeepSpeed does not warn.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from deepspeed.utils.logging import logger

logger.setLevel("WARNING")
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # DeepSpeed calls it by old names
# It serves inference with a model cut across processes, and would be compiled first.
cast(dict[str, bool], deepspeed.ops.__compatible_ops__)["deepspeed_shm_comm"] = False


class ZeroEngine(Engine):
    """AdamW by DeepSpeed, stages 1 to 3; see `Engine` for what each method promises.

    In stage 3 the model that the engine was made with gives its weights away: `model`, which has the same structure,
    holds this process's part of each, gathers a layer when a pass comes to it and lets go of it after. What is sampled
    is the model itself, filled for as long as `whole` lasts.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig) -> None:
        self._stage = parallel.layout().zero_stage
        self._own = model
        self.model = _with_weights_of(model) if self._stage == 3 else model
        if parallel.layout().activation_checkpointing:
            checkpoint_activations(self.model)
        self._parameters = dict(unique_parameters(self.model))
        self._deepspeed = _initialize(self.model, config, adamw(self._parameters.values(), config))
        self._make_states()
        self._touched = False
        self._frozen: list[Any] = []
        if self._stage == 3:
            _keep_head(self.model)
            self._empty()

    @override
    def backward(self, loss: Tensor) -> None:
        self._deepspeed.optimizer.clear_backward_seen_flag()  # as a pass through DeepSpeed's own forward would do
        self._deepspeed._backward_prologue()
        (loss * parallel.world_size()).backward()  # DeepSpeed takes the mean over the processes, not the sum
        self._touched = True

    @override
    def step(self, learning_rate: float) -> float:
        if not self._touched:  # without a gradient AdamW does nothing, not even decay its moments
            return 0.0
        self._touched = False
        for group in self._deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate
        self._deepspeed.step()
        return float(self._deepspeed.get_global_grad_norm())

    @override
    def tensors(self) -> dict[str, Tensor]:
        result: dict[str, Tensor] = {}
        steps = self._states()[0]["step"]
        for name, parameter in self._parameters.items():
            _keep(result, f"weights.{name}", safe_get_full_fp32_param(parameter))
            _keep(result, f"optimizer.step.{name}", steps)
            for key in MOMENTS:
                _keep(result, f"optimizer.{key}.{name}", safe_get_full_optimizer_state(parameter, key))
        return result

    @override
    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        steps = [tensors[name] for name in map("optimizer.step.{}".format, self._parameters) if name in tensors]
        for state in self._states() if steps else ():
            state["step"].copy_(max(steps))
        for name, parameter in self._parameters.items():
            weights = tensors[f"weights.{name}"].to(parameter.device)
            if self._stage == 3:
                _set_whole(parameter, weights)
                safe_set_local_fp32_param(parameter, _own_part(parameter, weights))
            else:
                parameter.copy_(weights)
                safe_set_full_fp32_param(parameter, weights)
            for key in MOMENTS:
                if f"optimizer.{key}.{name}" in tensors:
                    self._set_moment(parameter, key, tensors[f"optimizer.{key}.{name}"].to(parameter.device))

    @override
    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        if self._stage < 3:
            yield
            return
        self._fill()
        try:
            yield
        finally:
            self._empty()

    @override
    def finish(self) -> None:
        if self._stage == 3:
            self._fill()
        self._deepspeed.destroy()
        for frozen in self._frozen:
            frozen.destroy()
        for parameter in self._own.parameters():
            parameter.data = parameter.data.clone()  # it lay in DeepSpeed's buffer
            parameter.grad = None

    @override
    def frozen_copy(self) -> nn.Module:
        with self.whole():
            frozen = copy.deepcopy(self._own).eval().requires_grad_(False)
        if self._stage == 3:
            self._frozen.append(_initialize(frozen))
            _keep_head(frozen)
        return frozen

    @override
    @torch.no_grad()
    def renew(self, frozen: nn.Module) -> None:
        if self._stage < 3:
            super().renew(frozen)
            return
        for target, source in zip(frozen.parameters(), self.model.parameters(), strict=True):
            with deepspeed.zero.GatheredParameters([source]):
                _set_whole(target, source.data)

    @override
    def frozen_tensors(self, frozen: nn.Module) -> dict[str, Tensor]:
        result: dict[str, Tensor] = {}
        for name, parameter in frozen.named_parameters():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self._stage == 3):
                _keep(result, name, parameter.data)
        return result

    @override
    @torch.no_grad()
    def load_frozen(self, frozen: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in frozen.named_parameters():
            if self._stage == 3:
                _set_whole(parameter, tensors[name])
            else:
                parameter.copy_(tensors[name])

    def _fill(self) -> None:
        """Gather the weights into the engine's own model, one at a time."""
        for own, shared in zip(self._own.parameters(), self.model.parameters(), strict=True):
            with deepspeed.zero.GatheredParameters([shared]):
                own.data = shared.data.clone()

    def _empty(self) -> None:
        for own in self._own.parameters():
            own.data = own.data.new_empty(0)

    def _flat_weights(self) -> list[Tensor]:
        """This process's part of the float32 weights, as the optimizer sees it: a few long vectors."""
        optimizer = self._deepspeed.optimizer
        return optimizer.fp32_partitioned_groups_flat if self._stage == 3 else optimizer.single_partition_of_fp32_groups

    def _states(self) -> list[dict[str, Tensor]]:
        """The optimizer's state for each of these."""
        return [self._deepspeed.optimizer.optimizer.state[flat] for flat in self._flat_weights()]

    def _make_states(self) -> None:
        """The state that AdamW would make in its first step. DeepSpeed 0.19 looks for it once, after the first of the
        optimizer's groups has made that step, and would never find the second's."""
        for flat, state in zip(self._flat_weights(), self._states(), strict=True):
            state |= {"step": flat.new_zeros(())} | {key: torch.zeros_like(flat) for key in MOMENTS}
        if self._stage < 3:
            self._deepspeed.optimizer._lazy_init_hp_params_optimizer_state()

    def _set_moment(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        if self._stage == 3:
            safe_set_local_optimizer_state(parameter, _own_part(parameter, value), key)
        else:
            safe_set_full_optimizer_state(parameter, value, key)


def _initialize(model: nn.Module, config: OptimizerConfig | None = None, optimizer: Any = None) -> Any:
    """DeepSpeed's engine over a model; without an optimizer, one that only gathers weights for its passes."""
    stage = parallel.layout().zero_stage
    numbers = sum(parameter.numel() for parameter in model.parameters())
    half = next(model.parameters()).dtype == torch.bfloat16
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,  # the engine's caller counts, and says by `step` where one ends
        "managed_gradient_accumulation": False,
        "steps_per_print": 2**31,
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": min(numbers, 2**27),
            "allgather_bucket_size": 2 * math.ceil(min(numbers, 2**27) / 2),
            "stage3_param_persistence_threshold": min(100_000, numbers // 10_000),
            "overlap_comm": False,
        },
        "bf16": {"enabled": half, "check_grad_overflow": half},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_allow_untested_optimizer": True,
    }
    if config is not None:
        settings["gradient_clipping"] = config.max_gradient_norm
    return deepspeed.initialize(model=model, optimizer=optimizer, config=settings, dist_init_required=False)[0]


def _with_weights_of(model: nn.Module) -> nn.Module:
    """A copy in structure whose parameters are new but share their memory."""
    known = {id(p): nn.Parameter(p.data, requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, known)


def _keep_head(model: nn.Module) -> None:
    """Let go of the language-model head only when the step is made: a pass may come to it once for each of its chunks
    of tokens, and how many those are differs between processes."""
    embeddings = getattr(model, "get_output_embeddings", lambda: None)()
    if embeddings is not None:
        embeddings.weight.is_external_param = True


def _keep(result: dict[str, Tensor], name: str, value: Tensor | None) -> None:
    """Take a gathered tensor on rank 0, which writes."""
    if parallel.rank() == 0 and value is not None:
        result[name] = value.detach().cpu().clone()


def _set_whole(parameter: nn.Parameter, value: Tensor) -> None:
    """Give a shared-out parameter new weights."""
    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        if parallel.rank() == 0:
            parameter.data.copy_(value)


def _own_part(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """This process's part of a whole tensor, as stage 3 cuts it: equal lengths, the last padded."""
    size = cast(Any, parameter).ds_tensor.numel()
    start = parallel.rank() * size
    part = value.flatten()[start : start + size].float()
    return nn.functional.pad(part, (0, size - part.numel()))
