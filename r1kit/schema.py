"""The one base of every configuration section and of every row: frozen, and closed to unknown keys."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of pipeline.yaml. Unknown keys and later changes are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _Conduct:
    """The type of CONDUCT."""


CONDUCT = _Conduct()
"""`Annotated[…, CONDUCT]` marks a setting of how a training is run, which changes no bit of what it makes: no stage key
depends on it, and a training that was stopped goes on when it is changed."""


def shaping(value: Any) -> Any:
    """The settings that shape a result: sections as mappings by their names in the file, without CONDUCT."""
    if isinstance(value, Section):
        fields = type(value).model_fields.items()
        kept = [(name, info) for name, info in fields if not any(mark is CONDUCT for mark in info.metadata)]
        return {info.alias or name: shaping(getattr(value, name)) for name, info in kept}
    if isinstance(value, Mapping):
        return {key: shaping(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shaping(item) for item in value]
    return value
