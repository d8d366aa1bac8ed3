"""Reading pipeline.yaml: one mapping for a profile, and the place that each value came from."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Key = str | int
Place = tuple[Key, ...]
"""The way to a value: ("zero", "steps"), ("distill", "students", 0, "name")."""

DEFAULTS = "defaults"
"""What all profiles share."""
PROFILES = "profiles"
DEFAULT_PROFILE = "default_profile"
FILE_KEYS = (DEFAULT_PROFILE, DEFAULTS, PROFILES)


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: `3e-6` is a number."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.checked: set[int] = set()


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


@dataclass(frozen=True)
class Settings:
    """Merged values of a profile, and where each stands."""

    values: dict[str, Any]
    origins: dict[Place, str] = field(default_factory=dict)
    """Place → `pipeline.yaml, line 12` or `--set zero.steps=3`."""
    profile: str = ""

    def origin(self, place: Place) -> str:
        """Where the value at `place` was written: itself, or the nearest thing around it that was."""
        for length in range(len(place), -1, -1):
            if place[:length] in self.origins:
                return self.origins[place[:length]]
        return "the defaults"


def read_settings(path: Path, profile: str | None, overrides: Iterable[str]) -> Settings:
    """The file's `defaults`, the profile's values laid over them, the overrides over both.

    Raises ValueError, one sentence, for a missing file, bad YAML, an unknown profile or a bad override.
    """
    file = _read(path)
    for key in file.values:
        if key not in FILE_KEYS:
            raise ValueError(
                f"{file.origin((key,))}: {key} cannot stand at the top; put it under {DEFAULTS}: "
                f"or a profile's name (the top holds {', '.join(FILE_KEYS)})"
            )
    profiles = _mapping(file, (PROFILES,))
    chosen = profile or file.values.get(DEFAULT_PROFILE)
    layers: list[Place] = [(DEFAULTS,)]
    if chosen is not None:
        if chosen not in profiles:
            where = "--profile" if profile else file.origin((DEFAULT_PROFILE,))
            raise ValueError(f"{where}: {path} has no profile {chosen!r}; {suggest(str(chosen), profiles)}")
        layers.append((PROFILES, chosen))
    values: dict[str, Any] = {}
    origins: dict[Place, str] = {(): str(path)}
    for layer in layers:
        values = _merge(values, _mapping(file, layer))
        size = len(layer)
        origins |= {p[size:]: o for p, o in file.origins.items() if p[:size] == layer and len(p) > size}
    settings = Settings(values, origins, str(chosen or ""))
    for override in overrides:
        settings = _override(settings, override)
    return settings


def _mapping(file: Settings, place: Place) -> dict[str, Any]:
    """The mapping at a place of the file; empty where nothing stands there."""
    value: Any = file.values
    for key in place:
        value = value.get(key)
        if value is None:
            return {}
    if not isinstance(value, dict):
        raise ValueError(f"{file.origin(place)}: {spell(place)} must be a mapping, not {value!r}")
    return value


def suggest(word: str, known: Iterable[Key]) -> str:
    """`did you mean 'steps'?`, or all that is known where nothing is close."""
    names = sorted(str(name) for name in known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"it can be {', '.join(names)}" if names else "there is none"


def spell(place: Place) -> str:
    """`distill.students.0.name`."""
    return ".".join(str(key) for key in place)


def _read(path: Path) -> Settings:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(
            f"{path} does not exist; run in the repository's root, or name the file with --config"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        origins: dict[Place, str] = {(): str(path)}
        values = {} if node is None else _build(loader, node, (), path, origins)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{line}: this is not YAML: {getattr(error, 'problem', None) or error}") from None
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of sections, not a {type(values).__name__}")
    return Settings(values, origins)


def _build(loader: _Loader, node: yaml.Node, place: Place, path: Path, origins: dict[Place, str]) -> Any:
    """The value of a node; notes the line of everything in it."""
    origins.setdefault(place, f"{path}, line {node.start_mark.line + 1}")
    if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
        raise yaml.MarkedYAMLError(problem=f"the tag {node.tag} is not known here", problem_mark=node.start_mark)
    if isinstance(node, yaml.MappingNode):
        _refuse_twice(loader, node, place, path)
        loader.flatten_mapping(node)
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node, deep=True))
            line = key_node.start_mark.line + 1
            origins[(*place, key)] = f"{path}, line {line}"
            values[key] = _build(loader, value_node, (*place, key), path, origins)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, child, (*place, number), path, origins) for number, child in enumerate(node.value)]
    return _finite(loader.construct_object(node, deep=True), spell(place), origins[place])


def _refuse_twice(loader: _Loader, node: yaml.MappingNode, place: Place, path: Path) -> None:
    """Raise for a key written twice in one mapping; one that replaces what `<<` brings in is meant."""
    if id(node) in loader.checked:
        return  # an alias: its keys and the merged ones now stand together
    loader.checked.add(id(node))
    seen: set[str] = set()
    for key_node, _ in node.value:
        key = str(key_node.value)
        if key in seen:
            line = key_node.start_mark.line + 1
            raise ValueError(f"{spell((*place, key))} stands twice ({path}, line {line}); remove one")
        seen.add(key)


def _finite(value: Any, name: str, origin: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}, but must be a finite number ({origin})")
    return value


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`: mappings merge, everything else (lists too) is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _override(settings: Settings, override: str) -> Settings:
    name, equals, text = override.partition("=")
    place = _place(name.strip())
    if not equals or not place or "" in place:
        raise ValueError(f"--set {override}: write it as --set section.key=value, for example zero.steps=20")
    try:
        value = yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader with one more number format)
    except yaml.YAMLError:
        raise ValueError(f"--set {override}: the value {text!r} is not YAML; quote it") from None
    _finite(value, spell(place), f"--set {override}")
    values = _replaced(settings.values, place, value, override, ())
    origins = {p: o for p, o in settings.origins.items() if p[: len(place)] != place}
    return Settings(values, {**origins, place: f"--set {override}"}, settings.profile)


def _place(name: str) -> Place:
    return tuple(int(part) if part.isdecimal() else part for part in name.split("."))


def _replaced(node: Any, place: Sequence[Key], value: Any, override: str, above: Place) -> Any:
    """A copy of `node` with the value at `place` replaced."""
    if not place:
        return value
    key, *rest = place
    if isinstance(node, list):
        if not isinstance(key, int) or key >= len(node):
            raise ValueError(
                f"--set {override}: {spell(above)} is a list of {len(node)}; its items are numbered from 0, not {key!r}"
            )
        return [
            _replaced(item, rest, value, override, (*above, key)) if number == key else item
            for number, item in enumerate(node)
        ]
    if node is not None and not isinstance(node, dict):
        raise ValueError(f"--set {override}: {spell(above)} is {node!r}, which has no {key!r} in it")
    mapping = dict(node or {})
    mapping[str(key)] = _replaced(mapping.get(str(key)), rest, value, override, (*above, key))
    return mapping
