"""Great Expectations behind one function: rules on a table of scalars, and what became of each.

Great Expectations reports a check that crashed as one that failed. Here the two are told apart, and a check that
looked at fewer rows than there are counts as crashed.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from r1kit.data.records import shown

if TYPE_CHECKING:
    import pandas as pd

NUM_EXAMPLES = 5
ROW, ID = "row", "id"
"""Columns that every examined table has: the number of a row in its file, from 1, and its id."""


@dataclass(frozen=True)
class Rule:
    """One expectation, in words for people."""

    name: str
    """What holds if all is well: `ids are unique`."""
    expectation: str
    """Class in `great_expectations.expectations`."""
    arguments: Mapping[str, Any]
    limit: str = ""
    """The bound in words, with its unit."""
    advice: str = "mend or remove these rows in their source"
    """The way out."""
    shows: str = ""
    """Column whose value is shown for a row at fault; empty means the column examined."""
    max_share: float = 0.0
    """So many of the rows may be at fault."""


@dataclass(frozen=True)
class Outcome:
    """What became of a rule."""

    rule: Rule
    checked: int
    """Rows looked at."""
    failed: int
    """Rows at fault; for a rule on the whole table, 1."""
    examples: tuple[Mapping[str, Any], ...] = field(default=())
    """Those at fault: row, id, value."""
    error: str = ""
    """What broke the check itself; empty where it ran to its end."""

    @property
    def success(self) -> bool:
        """Whether the rule was checked and holds."""
        return not self.error and self.failed <= self.rule.max_share * self.checked

    def __add__(self, later: "Outcome") -> "Outcome":
        """Of the same rule on more rows; only the first examples are kept."""
        examples = (*self.examples, *later.examples)[:NUM_EXAMPLES]
        checked, failed = self.checked + later.checked, self.failed + later.failed
        return Outcome(self.rule, checked, failed, examples, self.error or later.error)

    def to_json(self) -> dict[str, Any]:
        """As validation.json has it."""
        rule = self.rule
        said = {"rule": rule.name, "expectation": rule.expectation, "success": self.success, "checked": self.checked}
        said |= {"failed": self.failed, "limit": rule.limit}
        said |= {"examples": [dict(example) for example in self.examples[:NUM_EXAMPLES]]}
        return said | ({"error": self.error} if self.error else {})


def among(name: str, column: str, values: Sequence[Any], **words: Any) -> Rule:
    """Every value is one of these."""
    limit: dict[str, Any] = {"limit": "one of " + ", ".join(map(str, values))} | words
    return Rule(name, "ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(values)}, **limit)


def free_of(name: str, column: str, **words: Any) -> Rule:
    """A column of complaints is empty throughout."""
    return among(name, column, [""], **dict[str, Any]({"limit": ""} | words))


def between(name: str, column: str, low: float | None, high: float | None, **words: Any) -> Rule:
    """Every number lies within bounds, which are allowed too."""
    arguments = {"column": column, "min_value": low, "max_value": high}
    return Rule(name, "ExpectColumnValuesToBeBetween", arguments, **words)


def not_blank(column: str, **words: Any) -> Rule:
    """Every text has more than white space in it."""
    arguments = {"column": column, "regex": r"\S"}
    return Rule(f"{column} is not blank", "ExpectColumnValuesToMatchRegex", arguments, **words)


def same(name: str, column: str, other: str, **words: Any) -> Rule:
    """Two columns hold the same."""
    arguments = {"column_A": column, "column_B": other}
    return Rule(name, "ExpectColumnPairValuesToBeEqual", arguments, **dict[str, Any]({"shows": column} | words))


def contains(name: str, column: str, values: Sequence[str], **words: Any) -> Rule:
    """Each of these values stands somewhere in the column."""
    limit: dict[str, Any] = {"limit": "all of " + ", ".join(values)} | words
    arguments = {"column": column, "value_set": list(values)}
    return Rule(name, "ExpectColumnDistinctValuesToContainSet", arguments, **limit)


def examine(frame: "pd.DataFrame", rules: Sequence[Rule]) -> list[Outcome]:
    """What became of each rule, in their order.

    Args:
        frame: a table with columns `row` and `id`, and without missing values.
    """
    import great_expectations as gx  # takes seconds
    from great_expectations.exceptions.exceptions import GreatExpectationsError

    expectations = [
        getattr(gx.expectations, rule.expectation)(**rule.arguments, meta={"place": place})
        for place, rule in enumerate(rules)
    ]
    try:
        found = (
            _context()
            .data_sources.pandas_default.read_dataframe(frame)
            .validate(
                gx.ExpectationSuite(name="rules", expectations=expectations),
                result_format={
                    "result_format": "COMPLETE",
                    "unexpected_index_column_names": [ROW],
                },
            )
        )
    except (GreatExpectationsError, ValueError) as error:  # its ValueError must not pass for one of the data
        return [Outcome(rule, 0, 0, error=f"{type(error).__name__}: {error}") for rule in rules]
    results = {entry["expectation_config"]["meta"]["place"]: entry for entry in map(_as_json, found.results)}
    return [_outcome(rule, results.get(place), frame) for place, rule in enumerate(rules)]


@functools.cache
def _context() -> Any:
    """Great Expectations in memory alone: no files, no progress bars."""
    import great_expectations as gx
    from great_expectations.data_context.types import base

    settings = base.DataContextConfig(
        store_backend_defaults=base.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=base.ProgressBarsConfig(globally=False),
    )
    return gx.get_context(mode="ephemeral", project_config=settings)


def _as_json(result: Any) -> dict[str, Any]:
    return result.to_json_dict()


def _outcome(rule: Rule, entry: dict[str, Any] | None, frame: "pd.DataFrame") -> Outcome:
    error = _crash(entry["exception_info"]) if entry else "it gave no result"
    result = entry["result"] if entry else {}
    if not error and entry:
        if "element_count" not in result:
            return _table_outcome(rule, bool(entry["success"]), result, len(frame))
        checked = result["element_count"] - (result.get("missing_count") or 0)
        if checked != len(frame):
            error = f"it looked at {checked} of {len(frame)} rows"
        elif entry["success"] != (result["unexpected_count"] == 0):
            error = f"it says success = {entry['success']} with {result['unexpected_count']} rows at fault"
    if error:
        return Outcome(rule, 0, 0, error=error)
    column = rule.shows or rule.arguments["column"]
    places = result.get("unexpected_index_list") or result.get("partial_unexpected_index_list") or []
    numbers = sorted(place[ROW] for place in places)
    rows = frame[frame[ROW].isin(numbers)]
    examples = tuple(
        {"row": int(number), "id": shown(id_), "value": _plain(value)}
        for number, id_, value in zip(rows[ROW], rows[ID], rows[column], strict=True)
    )
    return Outcome(rule, len(frame), int(result["unexpected_count"]), examples)


def _table_outcome(rule: Rule, success: bool, result: Mapping[str, Any], size: int) -> Outcome:
    """Of a rule on the table as a whole."""
    if success:
        return Outcome(rule, size, 0)
    missing = result.get("partial_missing_list")
    value = f"without {', '.join(map(str, missing))}" if missing else _plain(result.get("observed_value"))
    return Outcome(rule, size, 1, ({"row": None, "id": "", "value": value},))


def _plain(value: Any) -> Any:
    """A cell as JSON has it, long texts shortened."""
    value = value.item() if hasattr(value, "item") else value
    return value if isinstance(value, int | float) else shown(value)


def _crash(information: Any) -> str:
    """The message of an exception within a check, or nothing; it stands flat, or under each metric at fault."""
    if not isinstance(information, Mapping):
        return ""
    if information.get("raised_exception"):
        return str(information.get("exception_message") or "an exception without words")
    nested = (_crash(value) for value in information.values() if isinstance(value, Mapping))
    return next((message for message in nested if message), "")
