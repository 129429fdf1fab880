"""The one pydantic configuration of everything a person or a process writes for us: strict, closed, camelCase."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from selfevo_contract.rules import Rule, form


class Closed(BaseModel):
    """Unknown fields are refused, types are not coerced, names on the wire are camelCase, instances are frozen."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """What must hold between fields; see `selfevo_contract.rules`."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        # As in Kubernetes: `queue:` with nothing behind it is no queue, and `grpo:` is the default.
        if not isinstance(data, dict) or None not in data.values():
            return data
        known = {field.alias for field in cls.model_fields.values()} | set(cls.model_fields)
        return {name: value for name, value in data.items() if value is not None or name not in known}

    @model_validator(mode="after")
    def _rules_hold(self) -> Closed:
        for rule in self.rules:
            rule.check(self)
        return self

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # Frozen, so one will do for all: pydantic copies the default of a field for every instance.
        return self

    def wire(self) -> dict[str, object]:
        """The value as JSON-ready data in camelCase, unset optional values left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Wire(Closed):
    """What our own processes hand to each other: code may build it by the fields' Python names."""

    model_config = ConfigDict(validate_by_name=True)


def _whole(value: Any) -> Any:
    # In JSON 3.0 is the whole number 3, and tools that turn YAML into JSON write one as the other.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_nulls(value: Any) -> Any:
    return {name: item for name, item in value.items() if item is not None} if isinstance(value, dict) else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number; 3.0 is one, 3.5 and true are none."""

NoNulls = BeforeValidator(_without_nulls)
"""On a mapping: names with nothing behind them are not there."""

Sha256 = Annotated[str, Field(max_length=64), form("[0-9a-f]{64}", "64 lower-case hexadecimal digits")]
"""A sha256 digest."""
