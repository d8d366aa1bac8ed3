"""Rows laid end to end, so that nothing is computed for padding, without one seeing another."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

Row = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt and of its response."""


def fill_packs(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Lay rows into as few packs as first-fit decreasing finds.

    Args:
        lengths: tokens of each row.
        capacity: most tokens of a pack; a longer row gets one of its own.

    Returns:
        Lists of row indices, one a pack; a function of the lengths alone.
    """
    packs: list[list[int]] = []
    free: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        place = next((place for place, room in enumerate(free) if room >= lengths[row]), None)
        if place is None:
            packs.append([])
            free.append(capacity)
            place = len(packs) - 1
        packs[place].append(row)
        free[place] -= lengths[row]
    return packs


def packed_logprobs(model: PreTrainedModel, packs: Sequence[Sequence[Row]]) -> Tensor:
    """Log-probability of every response token given its own row alone; prompt tokens get no logits.

    Positions start anew with each row. From that, and without an attention mask, transformers makes the
    block-diagonal causal mask itself.

    Args:
        packs: rows of each pack, laid end to end.

    Returns:
        [N] nats, row after row.
    """
    device = next(model.parameters()).device
    width = max(sum(len(prompt) + len(response) for prompt, response in pack) for pack in packs)
    ids = torch.zeros(len(packs), width, dtype=torch.long)
    positions = torch.arange(width).repeat(len(packs), 1)
    number, place, targets = [], [], []
    for index, pack in enumerate(packs):
        start = 0
        for prompt, response in pack:
            end = start + len(prompt) + len(response)
            ids[index, start:end] = torch.tensor([*prompt, *response])
            positions[index, start:] = torch.arange(width - start)  # what stands behind starts anew in its turn
            place += range(start + len(prompt) - 1, end - 1)  # the token before the one predicted
            number += [index] * len(response)
            targets += response
            start = end
        positions[index, start:] = torch.arange(width - start)  # padding is a row of its own
    body = model.get_submodule(model.base_model_prefix)
    hidden = body(input_ids=ids.to(device), position_ids=positions.to(device), use_cache=False).last_hidden_state
    chosen = hidden[torch.tensor(number, device=device), torch.tensor(place, device=device)]  # [N, D]
    head = model.get_output_embeddings()
    assert head is not None, "a causal language model has one"
    logp = head(chosen).float().log_softmax(-1)
    return logp.gather(1, torch.tensor(targets, device=device)[:, None]).squeeze(1)


@torch.no_grad()
def check_packing(model: PreTrainedModel) -> None:
    """Try on the model itself that a row does not see the one before it in a pack.

    Raises:
        ValueError: where it does, or where the attention's kind is not one whose mask transformers makes.
    """
    kind = model.config._attn_implementation
    if kind not in ("sdpa", "eager"):
        raise ValueError(
            f"packing needs attention of kind sdpa or eager, but the model's is {kind}: set packing to false"
        )
    was_training = model.training
    model.eval()
    row: Row = ([1, 0], [1, 0])
    first, second = (packed_logprobs(model, [[([before] * 4, [before]), row]])[-2:] for before in (0, 1))
    model.train(was_training)
    if not torch.equal(first, second):
        name = type(model).__name__
        raise ValueError(f"in {name} a packed row sees the one before it: set packing to false")
