"""The chat format: how a response is built, taken apart, and turned into tokens.

A reasoning response is `<think> chain </think> <answer> answer </answer>`; a general one is the reply, which a
think block may precede (arXiv 2501.12948, table 1). The tokenizer's own template is the only source of special
tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ZERO_SYSTEM = (
    "A user and an assistant talk. The assistant works on the user's question in its mind first, between <think> "
    "and </think>, and then gives the user the final answer alone, between <answer> and </answer>."
)
"""What R1-Zero is told: the conversation described in one line (arXiv 2501.12948, table 1, in our words)."""

MAX_UNTAGGED_CHARACTERS = 200
"""A response without any tag counts as an answer up to this length."""

_TAG = re.compile(r"</?(?:think|answer)>")
_WELL_FORMED = ["<think>", "</think>", "<answer>", "</answer>"]
_PROBE = ("r1kitchain", "r1kitreply")
_DATE = "26 Jul 2024"
"""Llama 3's templates tell the model the day, by default today's: a prompt must not change overnight."""


@dataclass(frozen=True)
class Parsed:
    """The parts of a completion."""

    think: str | None
    """The chain, to the end of the text where it is not closed; None if none was begun."""
    answer: str | None
    """What the single answer block behind the chain holds; None if there is none or more than one."""
    summary: str
    """What stands behind the chain, without answer tags; the whole text where there is no chain."""
    well_formed: bool
    """One chain, then one answer, neither empty, and nothing else but white space."""


def parse(completion: str, opens_think: bool = False) -> Parsed:
    """Takes a completion apart, in time linear in its length.

    Args:
        completion: what the model wrote.
        opens_think: the chat template already wrote `<think>` into the prompt, so the completion begins inside.
    """
    text = f"<think>{completion}" if opens_think else completion
    think, rest = _split_think(text)
    if rest is None:
        return Parsed(think=think, answer=None, summary="", well_formed=False)
    answer = _single_answer(rest)
    tags = list(_TAG.finditer(text))
    well_formed = (
        [tag.group() for tag in tags] == _WELL_FORMED
        and not text[: tags[0].start()].strip()
        and not text[tags[1].end() : tags[2].start()].strip()
        and not text[tags[3].end() :].strip()
        and bool(think and think.strip() and answer)
    )
    summary = rest.replace("<answer>", "").replace("</answer>", "").strip()
    return Parsed(think=think, answer=answer, summary=summary, well_formed=well_formed)


def is_reply(completion: str, opens_think: bool = False) -> bool:
    """Whether a completion is a general reply: some text, perhaps behind one chain, and no other tag of the format."""
    text = f"<think>{completion}" if opens_think else completion
    tags = [tag.group() for tag in _TAG.finditer(text)]
    before_chain = text.partition("<think>")[0] if tags else ""
    return tags in ([], ["<think>", "</think>"]) and not before_chain.strip() and bool(parse(text).summary)


def _split_think(text: str) -> tuple[str | None, str | None]:
    """The chain, and what stands behind it (None where the chain is never closed)."""
    start, end = text.find("<think>"), text.find("</think>")
    if start < 0 and end < 0:
        return None, text
    if end < 0:
        return text[start + len("<think>") :], None
    think = text[start + len("<think>") : end] if 0 <= start < end else None
    return think, text[end + len("</think>") :]


def _single_answer(rest: str) -> str | None:
    if rest.count("<answer>") != 1 or rest.count("</answer>") != 1:
        return None
    start, end = rest.index("<answer>") + len("<answer>"), rest.index("</answer>")
    return rest[start:end].strip() if start <= end else None


def final_answer(completion: str, opens_think: bool = False) -> str | None:
    """The one answer that a completion commits to, or None.

    It is the answer block; without one, the last `\\boxed{}` behind the chain; without either, what stands behind
    the chain if it is short. Several answer blocks, or a chain that is never closed, are no answer.
    """
    parsed = parse(completion, opens_think)
    if parsed.answer is not None:
        return parsed.answer or None
    if "<answer>" in completion or "</answer>" in completion or not parsed.summary:
        return None
    boxed = last_boxed(parsed.summary)
    if boxed is not None:
        return boxed.strip() or None
    return parsed.summary if len(parsed.summary) <= MAX_UNTAGGED_CHARACTERS else None


def last_boxed(text: str) -> str | None:
    """What the last `\\boxed{}` holds, braces balanced; None if there is none or it is never closed."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for place in range(start + len("\\boxed"), len(text)):
        if text[place] in "{}" and text[place - 1] != "\\":
            depth += 1 if text[place] == "{" else -1
            if depth == 0:
                return text[start + len("\\boxed{") : place]
    return None


def response(think: str | None, answer: str) -> str:
    """The canonical spelling of a reasoning response; without a chain, of the answer alone."""
    block = f"<answer> {answer.strip()} </answer>"
    return block if think is None else f"<think> {think.strip()} </think> {block}"


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: str, system: str | None = None) -> str:
    """The prompt as the model sees it, up to where its turn begins."""
    return _render(tokenizer, _messages(prompt, system), add_generation_prompt=True)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, system: str | None = None) -> list[int]:
    """The tokens of `prompt_text`."""
    return _ids(tokenizer, prompt_text(tokenizer, prompt, system))


def opens_think(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template ends the prompt with `<think>`, so that no completion will begin with it."""
    return prompt_text(tokenizer, "question").rstrip().endswith("<think>")


def training_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    response: str,
    system: str | None = None,
) -> tuple[list[int], int]:
    """A conversation to learn from: prompt, response, end of turn.

    Prompt and response are tokenised apart, as they are when sampling. The end of turn belongs to what is learned,
    so padding must be masked by length, never by comparing with the padding token.

    Returns:
        The token ids, and how many of them are the prompt's.
    """
    text = prompt_text(tokenizer, prompt, system)
    if text.rstrip().endswith("<think>"):
        response = response.lstrip().removeprefix("<think>")
    ids = _ids(tokenizer, text)
    return [*ids, *_ids(tokenizer, response), end_id(tokenizer)], len(ids)


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends the assistant's turn: what the template writes behind a response, else the EOS token.

    Raises:
        ValueError: if the tokenizer has neither.
    """
    reply = _PROBE[1]
    rendered = _render(
        tokenizer,
        [*_messages("question", None), {"role": "assistant", "content": reply}],
    )
    added = tokenizer.added_tokens_decoder.items()
    special = {*tokenizer.all_special_ids, *(number for number, token in added if token.special)}
    tail = _ids(tokenizer, rendered[rendered.rindex(reply) + len(reply) :]) if reply in rendered else []
    found = next((token for token in tail if token in special), tokenizer.eos_token_id)
    if not isinstance(found, int):
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} has no end-of-turn token: set eos_token in tokenizer_config.json"
        )
    return found


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a tokenizer with which the format cannot be learned.

    Raises:
        ValueError: if there is no chat template, it drops the prompt, it swallows `<think>` from the assistant's
            turn, or there is no token to end a turn with.
    """
    name = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise ValueError(f"the tokenizer {name!r} has no chat template: put a chat_template.jinja beside it")
    if _PROBE[0] not in prompt_text(tokenizer, _PROBE[0]):
        raise ValueError(f"the chat template of {name!r} drops the user's prompt: mend its chat_template.jinja")
    reply = response(_PROBE[0], _PROBE[1])
    rendered = _render(
        tokenizer,
        [*_messages("question", None), {"role": "assistant", "content": reply}],
    )
    chain = re.search(
        rf"<think>\s*{_PROBE[0]}\s*</think>\s*<answer>\s*{_PROBE[1]}\s*</answer>",
        rendered,
    )
    if not chain:
        raise ValueError(
            f"the chat template of {name!r} swallows <think> from the assistant's turn, so a chain cannot be learned: "
            "let chat_template.jinja write the assistant's content unchanged"
        )
    known = _ids(tokenizer, "<think> </think> <answer> </answer>")
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in known:
        raise ValueError(f"the tokenizer {name!r} does not know <think> or <answer>: add them to its vocabulary")
    end_id(tokenizer)


def _messages(prompt: str, system: str | None) -> list[dict[str, str]]:
    opening = [{"role": "system", "content": system}] if system else []
    return [*opening, {"role": "user", "content": prompt}]


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, str]],
    add_generation_prompt: bool = False,
) -> str:
    rendered = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt, date_string=_DATE
    )
    assert isinstance(rendered, str)
    return rendered


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])  # pyright: ignore[reportArgumentType]
