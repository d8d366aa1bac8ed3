"""Asking a model: its thinking apart from its answer."""

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.lineage import resolve_model
from tasks.store import fetch
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from r1kit.config import Config
    from r1kit.sampler import SamplingConfig


@dataclass(frozen=True)
class Reply:
    """What a model said, as plain text without control characters."""

    model: str
    prompt: str
    thinking: str | None
    """None where it did not think."""
    answer: str
    """What stands behind the chain, without its tags."""
    tokens: int
    finished: bool
    """False where it was cut at the limit."""


class Speaker:
    """A loaded model that answers questions, each on its own: the recipe trains on single turns."""

    def __init__(self, reference: str, config: "Config", workspace: Workspace) -> None:
        """Load the model that `reference` means. Raises ValueError where there is none, or its bytes were altered."""
        found = resolve_model(reference, workspace, config.name)
        directory = fetch(found.artifact, workspace)
        from r1kit import chat, models
        from tasks.machine import prepare_torch

        prepare_torch(config.runtime)
        self.title = found.title
        self._system = config.system_prompt
        self._model, self._tokenizer = models.load(directory, config.model.dtype)
        self._opens_think = chat.opens_think(self._tokenizer)

    def ask(self, prompt: str, sampling: "SamplingConfig", *, seed: int = 0) -> Reply:
        """Put a question. The same seed gives the same reply.

        Raises ValueError for an empty question, or one that leaves no room for an answer.
        """
        from r1kit import chat
        from r1kit.random import derive_seed
        from r1kit.sampler import sample

        if not prompt.strip():
            raise ValueError("the question is empty; ask something")
        ids = chat.prompt_ids(self._tokenizer, prompt, self._system)
        room = self._longest() - len(ids)
        if room < 1:
            raise ValueError(
                f"the question has {len(ids)} tokens and the model takes {self._longest()} with its answer; shorten it"
            )
        limited = sampling.model_copy(update={"max_tokens": min(sampling.max_tokens, room)})
        keys = [derive_seed("chat", prompt)]
        [[completion]] = sample(self._model, self._tokenizer, [ids], 1, limited, seed=seed, prompt_keys=keys)
        parsed = chat.parse(completion.text, self._opens_think)
        return Reply(
            model=self.title,
            prompt=prompt,
            thinking=None if parsed.think is None else printable(parsed.think.strip()),
            answer=printable(parsed.answer if parsed.answer is not None else parsed.summary),
            tokens=len(completion.token_ids),
            finished=completion.finished,
        )

    def _longest(self) -> int:
        config: Any = self._model.config
        return int(getattr(config, "max_position_embeddings", 0) or 2**31)


def printable(text: str) -> str:
    """A model's words without what could command a terminal: control and formatting characters become `�`."""
    return "".join("�" if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n\t" else c for c in text)
