"""Tokens through the layers of a Llama or a Qwen2 without gradients, in as few operations as it takes.

A decoding step of a small model costs what its hundreds of small operations cost to start. Here queries, keys and
values are one product with the first norm's and attention's scales in its weight, its features in such an order that a
rotation is one product of complex numbers; the residual is part of the products, and what can be done in place is. It
is for those two shapes, in float32 on a CPU; every other model decodes by its own forward.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, LlamaMLP, LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2DecoderLayer, Qwen2MLP, Qwen2RMSNorm

from r1kit.fast_linear import PackedLinear, SwiftLinear, can_pack, swift_order

Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""The tokens' queries [R, H, D], keys and values [R, K, D], factor of the scores -> [R, H, D]."""

_SHAPES = {
    LlamaForCausalLM: (LlamaDecoderLayer, LlamaAttention, LlamaMLP, LlamaRMSNorm),
    Qwen2ForCausalLM: (Qwen2DecoderLayer, Qwen2Attention, Qwen2MLP, Qwen2RMSNorm),
}


class LeanLlama:
    """A model's weights, some of them as copies, made for decoding. Make it anew after an update."""

    def __init__(self, model: PreTrainedModel) -> None:
        body: Any = model.base_model
        self._embedding = body.embed_tokens.weight.detach()
        self._rotary = body.rotary_emb
        self._layers = [_Layer(layer) for layer in body.layers]
        head: Any = model.get_output_embeddings()
        self._norm, self._head = _Norm(body.norm), PackedLinear(head.weight, head.bias)

    def hidden(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """[R] tokens at their [R] positions -> [R, D] last hidden states."""
        rows = swift_order(self._embedding[tokens])
        cosine, sine = (part[0, :, None] for part in self._rotary(rows, positions[None]))  # [R, 1, D]
        half = sine.shape[-1] // 2
        rotation = torch.complex(cosine[..., :half].contiguous(), sine[..., :half].contiguous())
        for layer in self._layers:
            rows = layer(rows, rotation, attend)
        return self._norm(rows)

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, D] -> [R, V]"""
        return self._head(hidden.contiguous())


class _Layer:
    """One decoder layer."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._width = attention.head_dim
        self._queries, self._keys = (part.out_features // self._width for part in (attention.q_proj, attention.k_proj))
        parts = (attention.q_proj, attention.scaling), (attention.k_proj, 1.0), (attention.v_proj, 1.0)
        weight = torch.cat([part.weight.detach() * scale for part, scale in parts])
        biases = [part.bias.detach() * scale for part, scale in parts if part.bias is not None]
        order = self._by_pairs(len(weight))
        self._before_attention = _Norm(layer.input_layernorm)
        weight = (weight[order] * self._before_attention.weight).t().contiguous().t()  # by columns: a little faster
        self._qkv = SwiftLinear(weight, torch.cat(biases)[order] if biases else None)
        self._before_mlp = _Norm(layer.post_attention_layernorm)
        self._gate, self._up, self._out, self._down = (
            SwiftLinear(part.weight, part.bias)
            for part in (mlp.gate_proj, mlp.up_proj, attention.o_proj, mlp.down_proj)
        )

    def _by_pairs(self, size: int) -> Tensor:
        """The order of `size` features in which the two that are rotated together stand together."""
        order, rotated = torch.arange(size), (self._queries + self._keys) * self._width
        order[:rotated] = order[:rotated].view(-1, 2, self._width // 2).mT.flatten()
        return order

    def __call__(self, rows: Tensor, rotation: Tensor, attend: Attend) -> Tensor:
        """[R, D] -> [R, D]; rotation [R, 1, head width / 2], complex."""
        heads = self._qkv(self._before_attention.scaled(rows)).contiguous().unflatten(1, (-1, self._width))
        torch.view_as_complex(heads[:, : self._queries + self._keys].unflatten(2, (-1, 2))).mul_(rotation)
        query, key, value = heads.split([self._queries, self._keys, self._keys], 1)
        rows = self._out.add_to(rows, attend(query, key, value, 1.0).flatten(1))
        normed = self._before_mlp(rows)
        between = functional.silu(self._gate(normed), inplace=True).mul_(self._up(normed))
        return self._down.add_to(rows, between)


class _Norm:
    """A norm by the root mean square, whose weight takes the place of the mean's division."""

    def __init__(self, norm: Any) -> None:
        width = norm.weight.shape[0]
        self.weight = norm.weight.detach() * width**0.5
        self._epsilon = norm.variance_epsilon * width

    def __call__(self, rows: Tensor) -> Tensor:
        """[R, D] -> [R, D]"""
        return self.scaled(rows).mul_(self.weight)

    def scaled(self, rows: Tensor) -> Tensor:
        """[R, D] -> [R, D], still to be multiplied by the weight."""
        return rows * rows.square().sum(-1, keepdim=True).add_(self._epsilon).rsqrt_()


def lean(model: PreTrainedModel) -> LeanLlama | None:
    """A model's lean form; None where it is not one of the shapes that this module knows, plain and on a CPU."""
    shape = _SHAPES.get(type(model))
    return LeanLlama(model) if shape and _is_plain(model, shape) else None


def _is_plain(model: PreTrainedModel, shape: tuple[type, ...]) -> bool:
    body: Any = model.base_model
    layer_type, attention_type, mlp_type, norm_type = shape
    if model.config.hidden_act != "silu" or any(_hooked(module) for module in model.modules()):
        return False
    for layer in body.layers:
        parts = type(layer), type(layer.self_attn), type(layer.mlp), type(layer.input_layernorm)
        if parts != (layer_type, attention_type, mlp_type, norm_type):
            return False
        if getattr(layer.self_attn, "sliding_window", None) is not None:
            return False
    return all(can_pack(module) for module in model.modules() if isinstance(module, nn.Linear))


def _hooked(module: nn.Module) -> bool:
    """Whether somebody, as ZeRO-3 does, has to be told when this module is used."""
    return bool(module._forward_pre_hooks or module._forward_hooks)
