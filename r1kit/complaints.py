"""What is wrong with a settings file, in one sentence: the key, the file, the line and what is allowed."""

from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic_core import ErrorDetails

from r1kit.schema import Section
from r1kit.settings import Key, Place, Settings, spell, suggest

_KINDS = {
    "int_": "a whole number",
    "float_": "a number",
    "bool_": "true or false",
    "string_type": "text",
    "tuple_": "a list",
    "list_": "a list",
    "dict_": "a mapping",
    "model_type": "a mapping of settings",
}
"""What pydantic's error types ask for, by their beginnings."""


def sentence(errors: list[ErrorDetails], settings: Settings, root: type[Section]) -> str:
    """The first error for the user, and how many more there are; `root` is the schema of the whole file."""
    more = f" (and {len(errors) - 1} more like it)" if len(errors) > 1 else ""
    return _complaint(errors[0], settings, root) + more


def _complaint(error: ErrorDetails, settings: Settings, root: type[Section]) -> str:
    place: Place = _written(error["loc"], settings.values)
    name, origin = spell(place), settings.origin(place)
    match error["type"]:
        case "extra_forbidden":
            section = _section_at(place[:-1], root)
            return f"{origin}: {name} is not a setting; {suggest(str(place[-1]), _keys(section))}"
        case "missing":
            return f"{origin}: {name} is missing; every entry needs it"
        case "literal_error":
            allowed = error.get("ctx", {}).get("expected", "")
            return f"{origin}: {name} is {error['input']!r}, but must be {allowed}"
        case "value_error":  # two settings of one section contradict each other; the message names them
            return f"{origin}: {name}.{error['msg'].removeprefix('Value error, ')}"
    return f"{origin}: {name} is {error['input']!r}, but must be {_wanted(error)}"


def _wanted(error: ErrorDetails) -> str:
    """What the field takes, in words."""
    kind = next((words for prefix, words in _KINDS.items() if error["type"].startswith(prefix)), None)
    if error["type"] == "string_pattern_mismatch":
        return f"spelled like {error.get('ctx', {}).get('pattern')}"
    return kind or error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")


def _written(loc: tuple[Key, ...], values: Any) -> Place:
    """The part of pydantic's location that stands in the file: it adds names of union members and keys."""
    place: list[Key] = []
    for number, key in enumerate(loc):
        last = number == len(loc) - 1
        inside = (isinstance(values, dict) and key in values) or (
            isinstance(values, list) and isinstance(key, int) and key < len(values)
        )
        if inside:
            values = values[key]  # pyright: ignore[reportCallIssue, reportArgumentType]  (inside says so)
            place.append(key)
        elif last and isinstance(values, dict) and key != "[key]":
            place.append(key)
    return tuple(place)


def _section_at(place: Place, root: type[Section]) -> type[Section] | None:
    """The class of the section at a place, if it is one."""
    annotation: Any = root
    for key in place:
        section = _section_in(annotation)
        if section is not None:
            fields = {info.alias or name: info.annotation for name, info in section.model_fields.items()}
            annotation = fields.get(str(key))
        elif get_args(annotation):
            annotation = get_args(annotation)[0 if get_origin(annotation) in (tuple, list) else -1]
    return _section_in(annotation)


def _section_in(annotation: Any) -> type[Section] | None:
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((m for m in members if isinstance(m, type) and issubclass(m, Section)), None)


def _keys(section: type[Section] | None) -> list[str]:
    return [info.alias or name for name, info in section.model_fields.items()] if section else []
