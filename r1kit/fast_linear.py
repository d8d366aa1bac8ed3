"""Linear layers on a CPU for a handful of rows at a time, as decoding has them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_SWIFT_FROM = 32
_ROWS_TOGETHER = 8
"""From so many rows on, and where they come in eights, the plain product with the weight first is the faster one."""
_PACK_UP_TO = 128
"""For more rows that do not come in eights, the plain product does without a packed copy."""
_MAX_ROWS = 512
"""Beyond so many rows at once the packed form gains nothing."""


class PackedLinear:
    """A linear layer that multiplies by a copy of its weight in the order that oneDNN reads it in.

    On a CPU, in float32 and for a few dozen rows, that is up to twice as fast as the general product, which packs the
    weight anew at every call; packing costs about as much as one such call. It is done when rows first come.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self._packed: Tensor | None = None

    def __call__(self, rows: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        num_rows = rows.numel() // rows.shape[-1]
        if num_rows > _MAX_ROWS:
            return nn.functional.linear(rows, self.weight, self.bias)
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, num_rows)
        return torch.ops.mkldnn._linear_pointwise(rows, self._packed, self.bias, "none", [], "")


def swift_count(num_rows: int) -> int:
    """So many rows, or a few more where those are multiplied in less time."""
    return num_rows + -num_rows % _ROWS_TOGETHER if num_rows >= _SWIFT_FROM else num_rows


class SwiftLinear(PackedLinear):
    """A linear layer that for many rows multiplies its plain weight by the rows as columns: nothing is packed.

    Then the result lies in memory column by column. That suits what works on elements, or is a product again.
    """

    def __call__(self, rows: Tensor) -> Tensor:
        """[R, in] -> [R, out]"""
        if not _many(rows):
            few = len(rows) <= _PACK_UP_TO
            return super().__call__(rows) if few else nn.functional.linear(rows, self.weight, self.bias)
        if self.bias is None:
            return torch.mm(self.weight, rows.t()).t()
        return torch.addmm(self.bias[:, None], self.weight, rows.t()).t()

    def add_to(self, sums: Tensor, rows: Tensor) -> Tensor:
        """The product added to `sums`, [R, out], which may be changed."""
        if not _many(rows) or self.bias is not None:
            return self(rows).add_(sums)
        return sums.t().addmm_(self.weight, rows.t()).t()


def swift_order(rows: Tensor) -> Tensor:
    """Rows, [R, D], in the order in memory that a `SwiftLinear` gives so many of them."""
    return rows.t().contiguous().t() if _many(rows) else rows.contiguous()


def _many(rows: Tensor) -> bool:
    return len(rows) >= _SWIFT_FROM and len(rows) % _ROWS_TOGETHER == 0


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
