"""Linear layers on a CPU for a handful of rows at a time, as decoding has them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_MAX_ROWS = 512
"""Beyond so many rows at once the packed form gains nothing."""


class PackedLinear:
    """A linear layer that multiplies by a copy of its weight in the order that oneDNN reads it in.

    On a CPU, in float32 and for a few dozen rows, that is up to twice as fast as the general product, which packs the
    weight anew at every call; packing costs about as much as one such call. It is done when rows first come.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight, self._bias = weight.detach(), bias
        self._packed: Tensor | None = None

    def __call__(self, rows: Tensor, activation: str = "none") -> Tensor:
        """[..., in] -> [..., out]; `activation` is none, or `swish`."""
        if rows.numel() // rows.shape[-1] > _MAX_ROWS:
            product = nn.functional.linear(rows, self._weight, self._bias)
            return nn.functional.silu(product) if activation == "swish" else product
        return torch.ops.mkldnn._linear_pointwise(rows, self._for(rows), self._bias, activation, [], "")

    def with_other(self, rows: Tensor, other: Tensor, operation: str) -> Tensor:
        """The product added to another tensor (`add`) or multiplied by it (`mul`), in one go."""
        return torch.ops.mkldnn._linear_pointwise.binary(rows, other, self._for(rows), self._bias, operation)

    def _for(self, rows: Tensor) -> Tensor:
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight, rows.numel() // rows.shape[-1])
        assert self._packed is not None
        return self._packed


@contextmanager
def packed_linears(model: nn.Module) -> Iterator[None]:
    """Within, the model's linear layers multiply by packed copies of their weights, where that is known to pay.

    Elsewhere nothing is changed. The weights must not change within, and gradients cannot be taken.
    """
    packed = [module for module in model.modules() if can_pack(module)]
    try:
        for module in packed:
            assert isinstance(module, nn.Linear)
            module.__dict__["forward"] = PackedLinear(module.weight, module.bias)
        yield
    finally:
        for module in packed:
            module.__dict__.pop("forward", None)


def can_pack(module: nn.Module) -> bool:
    """Whether a module is a plain linear layer in float32 on a CPU whose oneDNN packs."""
    if not isinstance(module, nn.Linear) or type(module).forward is not nn.Linear.forward:
        return False
    weight = module.weight
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    plain = "forward" not in module.__dict__ and weight.device.type == "cpu"
    return known and plain and weight.dtype == torch.float32 and weight.numel() > 0
