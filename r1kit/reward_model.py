"""Reward models for preference RL: helpfulness from pairs, harmlessness from single responses."""

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from r1kit import chat, parallel, random, tensorfile
from r1kit.assessment import Assessment, JudgedPair, assess
from r1kit.engine import Engine, Log, learning_rate, micro_batches, open_engine, shared_micro_batches
from r1kit.models import load_tokenizer
from r1kit.ragged import hidden_states, lay_out
from r1kit.resume import CheckpointConfig, Checkpoints, digest_tokens
from r1kit.rows import PreferencePair
from r1kit.schema import CONDUCT, shaping
from r1kit.watch import FiniteWatch, Watch

Kind = Literal["helpful", "harmless"]
"""`helpful` compares pairs and reads the final summary only; `harmless` judges one response and reads all of
it (arXiv 2501.12948, section 2.3.4)."""
_WEIGHTS, _CARD = "model.safetensors", "reward_model.json"
_FINAL_RATIO = 0.1
_CENTRED_PAIRS = 512


class RewardModelConfig(CheckpointConfig):
    """One reward-model training (arXiv 2501.12948, supplementary B.3: 6e-6, batch 256, one epoch)."""

    learning_rate: float = Field(default=6e-6, gt=0)
    """Peak learning rate, decayed linearly to a tenth."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the pairs."""
    max_steps: int | None = Field(default=None, gt=0)
    """Most optimizer steps."""
    batch_size: int = Field(default=256, gt=0)
    """Pairs in a step."""
    max_length_tokens: int = Field(default=8192, gt=1)
    """Longer texts are cut at the left."""
    micro_batch_tokens: int = Field(default=16384, gt=0)
    """Most padded tokens in one forward pass."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW weight decay."""
    adam_betas: tuple[float, float] = (0.9, 0.95)
    """AdamW moment decays."""
    max_gradient_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    watch: Annotated[FiniteWatch, CONDUCT] = FiniteWatch()
    """When the training stops because it is dead."""


class RewardModel(nn.Module):
    """A decoder without its language-model head, and one number read off the last token's hidden state."""

    def __init__(self, backbone: PreTrainedModel, learned_bias: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.config.hidden_size, 1, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        # A comparison is blind to the bias: its gradient is rounding noise, which Adam would blow up.
        self.head.bias.requires_grad_(learned_bias)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    def forward(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """[rows] scores of token sequences."""
        layout = lay_out([(text, ()) for text in texts], self.device)
        lasts = torch.tensor([len(text) for text in texts], device=self.device).cumsum(0) - 1
        hidden = hidden_states(self.backbone, layout).index_select(0, lasts)  # [rows, hidden]
        return self.head(hidden.to(self.head.weight.dtype)).squeeze(1)


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of two responses in random order, and whether the first is the preferred one."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    first_preferred: bool
    lengths: tuple[int, int]
    """Tokens of each response, prompt left out and nothing cut."""


class Judge:
    """A trained reward model with what it needs to read text."""

    def __init__(
        self, model: RewardModel, tokenizer: PreTrainedTokenizerBase, kind: Kind, max_length_tokens: int
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.kind: Kind = kind
        self.max_length_tokens = max_length_tokens

    def score(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        opens_think: bool = False,
        micro_batch_tokens: int = 16384,
    ) -> list[float]:
        """How good each completion is, as the log-odds of being preferred (to an average training response)
        or of being harmless; a sigmoid of it lies in (0, 1)."""
        texts = [
            encode(self.tokenizer, self.kind, prompt, completion, self.max_length_tokens, opens_think)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        return score_tokens(self.model, texts, micro_batch_tokens)

    def save(self, directory: Path, metrics: Mapping[str, float] | None = None) -> None:
        """Write weights as safetensors, everything else as JSON; of several processes rank 0 does."""
        if parallel.rank():
            return
        directory.mkdir(parents=True, exist_ok=True)
        tensorfile.write(directory / _WEIGHTS, self.model.state_dict())
        self.model.backbone.config.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        card = {
            "kind": self.kind,
            "max_length_tokens": self.max_length_tokens,
            "metrics": dict(metrics or {}),
        }
        (directory / _CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")


def load(directory: Path) -> Judge:
    """Read back what `Judge.save` wrote, offline.

    Raises:
        ValueError: where a file is missing.
    """
    for name in (_CARD, _WEIGHTS, "config.json"):
        if not (directory / name).is_file():
            raise ValueError(f"{directory} is not a reward model: {name} is missing; run the stage reward_models again")
    card = json.loads((directory / _CARD).read_text())
    backbone = AutoModel.from_config(AutoConfig.from_pretrained(directory, local_files_only=True))
    model = RewardModel(backbone, learned_bias=card["kind"] == "harmless")
    tensors = load_file(directory / _WEIGHTS)
    model.to(next(tensor.dtype for name, tensor in tensors.items() if name.startswith("backbone.")))
    model.head.float()
    model.load_state_dict(tensors)
    return Judge(model.eval(), load_tokenizer(directory), card["kind"], card["max_length_tokens"])


def reads(kind: Kind, completion: str, opens_think: bool = False) -> str:
    """The part of a completion that this kind of model looks at."""
    return chat.parse(completion, opens_think).summary if kind == "helpful" else completion


def encode(
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind,
    prompt: str,
    completion: str,
    max_length_tokens: int,
    opens_think: bool = False,
) -> tuple[int, ...]:
    """Token ids of prompt, what is read of the completion, and the end token; if too long, the last ones."""
    return _encoded(tokenizer, kind, prompt, completion, max_length_tokens, opens_think)[0]


def _encoded(
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind,
    prompt: str,
    completion: str,
    max_length_tokens: int,
    opens_think: bool = False,
) -> tuple[tuple[int, ...], int]:
    """What `encode` gives, and the tokens of the response alone before anything was cut."""
    ids, num_prompt = chat.training_ids(tokenizer, prompt, reads(kind, completion, opens_think))
    return tuple(ids[-max_length_tokens:]), len(ids) - num_prompt


@torch.no_grad()
def score_tokens(model: RewardModel, texts: Sequence[tuple[int, ...]], micro_batch_tokens: int) -> list[float]:
    """Scores of token sequences; equal ones are computed once."""
    model.eval()
    unique = list(dict.fromkeys(texts))
    scores: dict[tuple[int, ...], float] = {}
    for batch in micro_batches([len(text) for text in unique], micro_batch_tokens):
        values = model([unique[row] for row in batch]).tolist()
        scores |= {unique[row]: value for row, value in zip(batch, values, strict=True)}
    return [scores[text] for text in texts]


def train(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[PreferencePair],
    config: RewardModelConfig,
    *,
    kind: Kind,
    seed: int,
    checkpoints: Path,
    log: Log,
    say: Callable[[str], None] = lambda line: None,
    made_from: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Judge, Assessment]:
    """Train a reward model on the pairs of its route, starting from a copy of the policy's body.

    `helpful`: the Bradley-Terry loss -log sigmoid(preferred - other), the order within a pair random
    (arXiv 2501.12948, section 2.3.4). `harmless`: each response alone, binary cross-entropy, the preferred
    one harmless. Killed at any instant and called again with the same arguments, it ends in the same bits.

    Args:
        policy: left as it is.
        pairs: rows of any route; those with split `heldout` only measure.
        checkpoints: folder that survives kills.
        made_from: digests of what else the result depends on, by name: the model it began from.

    Returns:
        The judge, and what it is worth on held-out pairs (`assess`); the figures also hold those of the training and
        of resuming (`Checkpoints.finish`).

    Raises:
        ValueError: without pairs to train on or to measure with, where `checkpoints` holds those of another training,
            or where this one is dead (`config.watch`).
    """
    train_pairs = encode_pairs([p for p in pairs if p.split == "train"], tokenizer, kind, config, seed)
    heldout = encode_pairs([p for p in pairs if p.split == "heldout"], tokenizer, kind, config, seed)
    for name, part in (("train", train_pairs), ("heldout", heldout)):
        if not part:
            raise ValueError(f"no preference pair has route {kind!r} and split {name!r}: add a source of such pairs")
    body = cast(PreTrainedModel, copy.deepcopy(policy.base_model))
    model = RewardModel(body.requires_grad_(True), learned_bias=kind == "harmless")
    model.to(policy.device)
    total = num_steps(len(train_pairs), config)
    engine = open_engine(model, config)
    order = random.Order(len(train_pairs), seed, "reward_model", kind)
    tokens = digest_tokens((pair.first, pair.second, [pair.first_preferred]) for pair in train_pairs)
    identity = {"settings": shaping(config), "kind": kind, "seed": seed, "pairs": tokens, "made_from": dict(made_from)}
    saves = Checkpoints(checkpoints, config, identity, say)
    done, loss, watch = 0, math.nan, Watch()
    if saved := saves.newest(total):
        engine.load(saved.tensors)
        done, loss, watch = saved.step, saved.state["loss"], Watch.model_validate(saved.state["watch"])
        del saved  # as large as model and optimizer together
    engine.model.train()
    for step in range(done, total):
        batch = [train_pairs[row] for row in order.take(step * config.batch_size, config.batch_size)]
        loss, right = accumulate(engine, batch, kind, config.micro_batch_tokens)
        rate = learning_rate(step, total, config.learning_rate, config.warmup_steps, "linear", _FINAL_RATIO)
        norm = engine.step(rate)
        metrics = {"loss": loss, "agreement": right, "gradient_norm": norm, "learning_rate": rate}
        watch = watch.after_update(metrics)
        log(step + 1, total, metrics | watch.metrics())
        saves.stop_if_dead(step + 1, watch.alarm(config.watch))
        if saves.due(step + 1, total):
            state = {"loss": loss, "watch": watch.model_dump()}
            saves.save(step + 1, engine.tensors(), state, good_step=step + 1 - watch.longest(config.watch))
    engine.finish()
    model.eval()
    if kind == "helpful":
        _centre(model, train_pairs, config.micro_batch_tokens)
    judge = Judge(model, tokenizer, kind, config.max_length_tokens)
    metrics = {"steps": float(total), "num_train_pairs": float(len(train_pairs)), "final_loss": loss}
    known = {frozenset((pair.first, pair.second)) for pair in train_pairs}
    unseen = [frozenset((pair.first, pair.second)) not in known for pair in heldout]
    metrics |= {"heldout_unseen_share": sum(unseen) / len(unseen)} | saves.finish()
    found = assess(judge_pairs(model, heldout, config.micro_batch_tokens), pairwise=kind == "helpful")
    return judge, replace(found, metrics=metrics | found.metrics)


def num_steps(num_pairs: int, config: RewardModelConfig) -> int:
    """Optimizer steps of a training over so many pairs."""
    steps = max(1, math.ceil(num_pairs * config.epochs / config.batch_size))
    return min(steps, config.max_steps or steps)


def encode_pairs(
    pairs: Sequence[PreferencePair],
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind,
    config: RewardModelConfig,
    seed: int,
) -> list[EncodedPair]:
    """The pairs of a route as tokens, the order within each drawn from (seed, id)."""
    result: list[EncodedPair] = []
    for pair in pairs:
        if pair.route != kind:
            continue
        sides = [
            _encoded(tokenizer, kind, pair.prompt, text, config.max_length_tokens)
            for text in (pair.chosen, pair.rejected)
        ]
        swap = random.derive_seed(seed, "pair order", pair.id) % 2 == 1
        (first, first_length), (second, second_length) = reversed(sides) if swap else sides
        result.append(EncodedPair(first, second, not swap, (first_length, second_length)))
    return result


def accumulate(
    engine: Engine, batch: Sequence[EncodedPair], kind: Kind, micro_batch_tokens: int
) -> tuple[float, float]:
    """Gradients of the mean loss over a batch, whatever the micro-batches and the number of processes; equal texts of a
    micro-batch are computed once.

    Returns:
        The mean loss, and the share of pairs whose preferred response scored higher.
    """
    total = right = 0.0
    sizes = [max(len(pair.first), len(pair.second)) for pair in batch]
    for rows, weight in shared_micro_batches(sizes, max(1, micro_batch_tokens // 2)):
        chosen = [batch[row] for row in rows]
        texts = list(dict.fromkeys(text for pair in chosen for text in (pair.first, pair.second)))
        place = {text: index for index, text in enumerate(texts)}
        scores = engine.model(texts)
        first = scores[[place[pair.first] for pair in chosen]]
        second = scores[[place[pair.second] for pair in chosen]]
        target = torch.tensor([float(pair.first_preferred) for pair in chosen], device=scores.device)
        loss = weight * _loss(first, second, target, kind).sum() / len(batch)
        engine.backward(loss)
        total += float(loss.detach())
        sign = 2 * target - 1
        right += weight * float((((first - second).detach() * sign).sign() + 1).sum()) / 2
    sums = parallel.total({"loss": total, "right": right})
    return sums["loss"], sums["right"] / len(batch)


def _loss(first: Tensor, second: Tensor, first_preferred: Tensor, kind: Kind) -> Tensor:
    """[pairs] losses: comparison for `helpful`, mean of both responses' cross-entropies for `harmless`."""
    entropy = functional.binary_cross_entropy_with_logits
    if kind == "helpful":
        return entropy(first - second, first_preferred, reduction="none")
    alone = entropy(first, first_preferred, reduction="none") + entropy(second, 1 - first_preferred, reduction="none")
    return alone / 2


@torch.no_grad()
def _centre(model: RewardModel, pairs: Sequence[EncodedPair], micro_batch_tokens: int) -> None:
    """Set the bias, which comparisons leave open, so that the mean training response scores zero.

    The mean is that of the first `_CENTRED_PAIRS`: reading them all would cost a third of the training.
    """
    texts = [text for pair in pairs[:_CENTRED_PAIRS] for text in (pair.first, pair.second)]
    scores = score_tokens(model, texts, micro_batch_tokens)
    model.head.bias.sub_(math.fsum(scores) / len(scores))


def judge_pairs(model: RewardModel, pairs: Sequence[EncodedPair], micro_batch_tokens: int) -> list[JudgedPair]:
    """The scores of both responses of each pair."""
    first = score_tokens(model, [pair.first for pair in pairs], micro_batch_tokens)
    second = score_tokens(model, [pair.second for pair in pairs], micro_batch_tokens)
    return [JudgedPair(a, b, p.lengths, p.first_preferred) for p, a, b in zip(pairs, first, second, strict=True)]
