"""What a validation remembers of the rows it has seen: enough to find repeats among any number of them."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from r1kit.data.near import NearDuplicates
from r1kit.data.normalise import normalise

TokenCounter = Callable[[str], int]


def estimated_tokens(text: str) -> int:
    """Tokens of a text where no tokenizer is at hand: one in four bytes of UTF-8."""
    return (len(text) if text.isascii() else len(text.encode(errors="replace"))) // 4


@dataclass
class Seen:
    """The rows of one kind, so far."""

    rows: int = 0
    ids: set[int] = field(default_factory=set)
    """Hashes of the ids."""
    sides: dict[str, dict[int, str]] = field(default_factory=lambda: {"train": {}, "heldout": {}})
    """Split of pairs → hash of a prompt → the first row with it; of sources without templates."""
    pairs: dict[int, str] = field(default_factory=dict)
    """Hash of prompt and responses of a pair → the first row with it; of sources without templates."""
    kinds_of_pairs: Counter[str] = field(default_factory=Counter)
    """`<route> <split>` → pairs."""
    longer: Counter[str] = field(default_factory=Counter)
    """Route → pairs whose preferred response is the longer one."""
    near: NearDuplicates = field(default_factory=NearDuplicates)
    names: list[str] = field(default_factory=list)
    """Ids, in order."""
    tokens: Counter[int] = field(default_factory=Counter)
    """Bits of a row's number of tokens → rows: a histogram by powers of two."""
    languages: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)

    def repeated(self, ids: Sequence[str]) -> list[str]:
        """For each row its id where another had it before, else nothing."""
        result = []
        for id_ in ids:
            known = _hash(id_)
            result.append(id_ or "an empty id" if known in self.ids else "")
            self.ids.add(known)
        self.names += ids
        return result

    def other_side(
        self, prompts: Sequence[str], splits: Sequence[str], ids: Sequence[str], read: Sequence[bool]
    ) -> list[str]:
        """For each pair, the id of one with the same prompt on the split's other side, else nothing."""
        result = []
        for prompt, split, id_, is_read in zip(prompts, splits, ids, read, strict=True):
            other: Mapping[int, str] = self.sides["heldout" if split == "train" else "train"]
            key = _hash(normalise(prompt))
            result.append(other.get(key, "") if is_read else "")
            if is_read and split in self.sides:
                self.sides[split].setdefault(key, id_)
        return result

    def turned(
        self, prompts: Sequence[str], pairs: Sequence[tuple[str, str]], ids: Sequence[str], read: Sequence[bool]
    ) -> list[str]:
        """For each pair, the id of one before it that prefers the other of the same two responses, else nothing."""
        result = []
        for prompt, (chosen, rejected), id_, is_read in zip(prompts, pairs, ids, read, strict=True):
            texts = [normalise(text) for text in (prompt, chosen, rejected)]
            result.append(self.pairs.get(_hash("\x1f".join([texts[0], texts[2], texts[1]])), "") if is_read else "")
            if is_read:
                self.pairs.setdefault(_hash("\x1f".join(texts)), id_)
        return result

    def count(self, tokens: Sequence[int], languages: Sequence[str], sources: Sequence[str]) -> None:
        """Take the distributions of a slice."""
        self.tokens.update(number.bit_length() for number in tokens)
        self.languages.update(languages)
        self.sources.update(sources)

    def distributions(self) -> dict[str, dict[str, int]]:
        """As the verdict has them: rows by their number of tokens (`<= 255`), language, source."""
        return {
            "tokens": {f"<= {2**bits - 1}": count for bits, count in sorted(self.tokens.items())},
            "languages": dict(self.languages.most_common()),
            "sources": dict(self.sources.most_common()),
        }


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest(), "little")
