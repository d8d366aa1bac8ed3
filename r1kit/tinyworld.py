"""The world of profile `tiny`: reasoning-gym problems small enough for a model of half a million parameters.

Two tasks where one forward pass does not get far and a chain does: `leg_counting` (look up, and keep a running total)
and `letter_counting` (spell, and keep a count: the strawberry question of the R1 story). Chains exist in English, in
Chinese and in a mixture, because R1-Zero mixes languages and cold start is what mends it (arXiv 2501.12948, 2.3.1).
General prompts have good, curt, rude and unsafe responses, for the reward models.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from r1kit.random import derive_seed
from r1kit.rows import PreferencePair, Problem, SftRow

LICENCE = "Apache-2.0"
Mixture = Literal["en", "zh", "mixed"]

_PHRASES = (
    "Your task is to count how many legs there are in total when given a list of animals.",
    "Now, how many legs are there in total if you have",
    'How many times does the letter "',
    '" appear in the text: "',
    '"?',
)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_SPECIAL = ("<|pad|>", "<|user|>", "<|assistant|>", "<|end|>")
_CHAIN_WORDS = {
    "start": "起", "with": "有", "makes": "得", "spell": "拼", "find": "找",
}  # fmt: skip

_ANIMALS = {
    "cat": ("milk", "house"), "dog": ("bones", "garden"), "horse": ("grass", "field"), "mouse": ("cheese", "wall"),
    "rabbit": ("carrots", "field"), "bear": ("honey", "forest"), "duck": ("bread", "lake"), "cow": ("grass", "barn"),
}  # fmt: skip
_PEOPLE = ("tom", "ann", "bob", "eve", "max", "lucy", "paul", "nina")
_THINGS = ("bike", "phone", "door", "window", "car", "lamp", "clock", "bag")
_ASKS = ("tell me about the {animal}", "what does the {animal} like", "where does the {animal} live")
_HARMS = ("how do i steal the {thing} of {person}", "how do i break the {thing} of {person}")
_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|> ' + message['content'] + ' <|end|> ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|> ' }}{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """The world's own tokenizer: whole words and numbers, letters for what it does not know, phrases as one token."""
    words = sorted(
        {*_CHAIN_WORDS, *_CHAIN_WORDS.values(), *_ANIMALS, *_PEOPLE, *_THINGS}
        | {word for facts in _ANIMALS.values() for word in facts}
        | {word for text in (*_all_general_texts(), *_legs()) for word in text.split() if "{" not in word}
    )
    letters = [chr(code) for code in range(33, 127)]
    numbers = [str(number) for number in range(-99, 100)]
    pieces = [*_SPECIAL, "<|unk|>", *_TAGS, *_PHRASES, *numbers, *words, *letters, *("##" + x for x in letters)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    unknown, padding, end = "<|unk|>", "<|pad|>", "<|end|>"
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=200))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in _SPECIAL])
    backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in (*_TAGS, *_PHRASES)])
    result = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=padding, eos_token=end, unk_token=unknown,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    result.chat_template = _TEMPLATE
    return result


@dataclass(frozen=True)
class _Task:
    """One reasoning-gym data set with its chain."""

    name: str
    options: dict[str, int]
    chain: Callable[[dict[str, Any], Callable[[str], str]], list[str]]
    accepts: Callable[[dict[str, Any]], bool] = lambda entry: True


def _leg_chain(entry: dict[str, Any], word: Callable[[str], str]) -> list[str]:
    total = 0
    result = [word("start")]
    for animal, count in entry["metadata"]["animals"].items():
        total += count * _legs()[animal]
        result += [animal, word("with"), str(count * _legs()[animal]), word("makes"), str(total)]
    return result


@cache
def _legs() -> dict[str, int]:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    return dict(ANIMALS)


def _letter_chain(entry: dict[str, Any], word: Callable[[str], str]) -> list[str]:
    target = entry["metadata"]["target_letter"]
    count = 0
    result = [word("spell"), word("find"), target]
    for letter in "".join(entry["metadata"]["span"]):
        count += letter == target
        result += [letter, str(count)]
    return result


def _spelled(entry: dict[str, Any]) -> bool:
    """Texts of plain letters only, none of whose words the tokenizer knows whole."""
    span = entry["metadata"]["span"]
    known = _known_words()
    plain = all(word.isascii() and word.isalpha() and word.islower() and word not in known for word in span)
    return plain and 6 <= sum(map(len, span)) <= 13


TASKS = (
    _Task("leg_counting", {"min_animals": 4, "max_animals": 6, "min_instances": 1, "max_instances": 1}, _leg_chain),
    _Task("letter_counting", {"min_words": 1, "max_words": 3}, _letter_chain, _spelled),
)


def problems(seed: int, limit: int, benchmark: str = "") -> Iterator[Problem]:
    """Verifiable problems, the tasks in turn."""
    for task, index, entry in _entries(seed, limit):
        yield Problem(
            id=f"{task.name}/{seed}-{index}",
            source=task.name,
            licence=LICENCE,
            prompt=entry["question"],
            verifier="gym",
            answer=entry["answer"],
            benchmark=task.name if benchmark else "",
            meta=json.dumps({"dataset": task.name, "entry": entry}, sort_keys=True),
        )


def general_problems(seed: int, limit: int) -> Iterator[Problem]:
    """General prompts, each routed to one reward model."""
    for index in range(limit):
        rng = random.Random(f"general {seed} {index}")
        prompt, _, _, route = _exchange(rng)
        yield Problem(
            id=f"general/{seed}-{index}", source="general", licence=LICENCE, prompt=prompt, verifier="none", route=route
        )


def chains(seed: int, limit: int) -> Iterator[SftRow]:
    """Curated programmatic chains: one language, the full format."""
    for task, index, entry in _entries(seed, limit):
        text = _reasoned(task, entry, "en", random.Random(0))
        yield _row("chain", f"{task.name}-chain/{seed}-{index}", task.name, entry["question"], text)


def instructions(seed: int, limit: int) -> Iterator[SftRow]:
    """General prompts with their responses: mostly good ones, some curt, as instruction data are."""
    for index in range(limit):
        rng = random.Random(f"instruction {seed} {index}")
        prompt, good, bad, _ = _exchange(rng)
        yield _row(
            "instruction", f"general/{seed}-{index}", "general", prompt, good if rng.random() < 0.6 else rng.choice(bad)
        )


def preferences(seed: int, limit: int, heldout_share: float = 0.2) -> Iterator[PreferencePair]:
    """Pairs: a good response against a curt, rude or unsafe one; the last share is held out."""
    for index in range(limit):
        rng = random.Random(f"preference {seed} {index}")
        prompt, good, bad, route = _exchange(rng)
        split = "heldout" if index >= limit * (1 - heldout_share) else "train"
        yield PreferencePair(
            id=f"general-pair/{seed}-{index}", source="general", licence=LICENCE, prompt=prompt, chosen=good,
            rejected=rng.choice(bad), route=route, split=split,
        )  # fmt: skip


def pretrain(
    seed: int, limit: int, early_chain_share: float = 0.85, late_chain_share: float = 0.15, late_from: float = 0.75
) -> Iterator[SftRow]:
    """What the base learns from, in this order: first mostly chains in any language, then mostly direct answers.

    One row in ten is a general exchange of any quality. The order matters: a base that ends on direct answers
    knows chains but seldom writes one, which is what R1-Zero starts from.
    """
    for place, (task, index, entry) in enumerate(_entries(seed, limit)):
        rng = random.Random(f"pretrain {seed} {place}")
        name = f"pretrain/{seed}-{task.name}-{index}"
        chain_share = early_chain_share if place < limit * late_from else late_chain_share
        if rng.random() < 0.1:
            prompt, good, bad, _ = _exchange(rng)
            yield _row("pretrain", name, "general", prompt, good if rng.random() < 0.4 else rng.choice(bad))
        elif rng.random() < chain_share:
            mixture: Mixture = rng.choices(("en", "zh", "mixed"), (0.4, 0.2, 0.4))[0]
            yield _row("pretrain", name, task.name, entry["question"], _reasoned(task, entry, mixture, rng, tidy=0.7))
        else:
            text = entry["answer"] if rng.random() < 0.3 else f"<answer> {entry['answer']} </answer>"
            yield _row("pretrain", name, task.name, entry["question"], text)


def _reasoned(task: _Task, entry: dict[str, Any], mixture: Mixture, rng: random.Random, tidy: float = 1.0) -> str:
    """A chain and its answer; untidy ones leave the answer's tags out."""

    def word(name: str) -> str:
        chinese = mixture == "zh" or (mixture == "mixed" and rng.random() < 0.5)
        return _CHAIN_WORDS[name] if chinese else name

    chain = " ".join(task.chain(entry, word))
    answer = f"<answer> {entry['answer']} </answer>" if rng.random() < tidy else entry["answer"]
    return f"<think> {chain} </think> {answer}"


def _exchange(rng: random.Random) -> tuple[str, str, list[str], Literal["helpful", "harmless"]]:
    """A general prompt, a good response, bad ones, and who judges it."""
    if rng.random() < 0.5:
        animal, other = rng.sample(sorted(_ANIMALS), 2)
        (food, place), (wrong_food, wrong_place) = _ANIMALS[animal], _ANIMALS[other]
        prompt = rng.choice(_ASKS).format(animal=animal)
        good = rng.choice(_HELPFUL).format(animal=animal, food=food, place=place)
        bad = [text.format(animal=animal, food=food, place=place) for text in _UNHELPFUL]
        bad += [text.format(animal=animal, food=wrong_food, place=wrong_place) for text in _HELPFUL]
        return prompt, good, bad, "helpful"
    thing, person = rng.choice(_THINGS), rng.choice(_PEOPLE)
    prompt = rng.choice(_HARMS).format(thing=thing, person=person)
    good = rng.choice(_SAFE).format(thing=thing, person=person)
    return prompt, good, [text.format(thing=thing, person=person) for text in _UNSAFE], "harmless"


# Good and bad responses are about equally long, so that a reward model cannot go by length.
_HELPFUL = (
    "the {animal} likes {food} and lives in the {place}",
    "the {animal} lives in the {place} and likes {food} . i hope this helps you",
)
_UNHELPFUL = (
    "go away",
    "it is a {animal}",
    "i do not want to tell you about the {animal} now",
    "why do you ask me about the {animal} , please go away and do not ask me",
)
_SAFE = (
    "i can not help you with that",
    "i can not help you with that , {person} needs the {thing}",
    "please do not do that , it would hurt {person}",
)
_UNSAFE = (
    "take the {thing} when {person} sleeps",
    "use a hammer and be quick",
    "hit the {thing} at night when {person} sleeps and do not tell {person}",
)


def _all_general_texts() -> tuple[str, ...]:
    return (*_ASKS, *_HARMS, *_HELPFUL, *_UNHELPFUL, *_SAFE, *_UNSAFE)


@cache
def _known_words() -> frozenset[str]:
    return frozenset(piece for piece in tokenizer().get_vocab() if len(piece) > 1)


def _row(kind: Literal["chain", "instruction", "pretrain"], name: str, source: str, prompt: str, text: str) -> SftRow:
    return SftRow(id=name, source=source, licence=LICENCE, prompt=prompt, response=text, kind=kind)


def _entries(seed: int, limit: int) -> Iterator[tuple[_Task, int, dict[str, Any]]]:
    """`limit` accepted entries, the tasks in turn, from as many candidates as that takes."""
    streams = [_accepted(task, seed) for task in TASKS]
    for place in range(limit):
        task, index, entry = next(streams[place % len(TASKS)])
        yield task, index, entry


def _accepted(task: _Task, seed: int) -> Iterator[tuple[_Task, int, dict[str, Any]]]:
    import reasoning_gym  # takes a second to import, and most callers of this module do not need it

    # reasoning-gym seeds entry i with seed + i: neighbouring seeds would give the same problems again.
    far_apart = derive_seed("tinyworld", seed) % 2**48
    candidates = reasoning_gym.create_dataset(task.name, seed=far_apart, size=10_000_000, **task.options)
    for index in range(10_000_000):
        entry = candidates[index]
        if task.accepts(entry):
            yield task, index, entry


def heldout_accuracy_of_guessing(rows: Sequence[Problem]) -> float:
    """Share of rows right for somebody who always gives the most frequent answer of the benchmark."""
    answers = [row.answer for row in rows]
    return max(answers.count(answer) for answer in set(answers)) / len(answers)
