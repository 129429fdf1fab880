"""Rules on what a person writes, each written once in both forms: as Python for the command, as CEL for the API server.

A rule that is written in two places drifts: one side then takes what the other refuses. So a rule carries both forms
and one sentence, stands beside the field that it is about, and a test sends thousands of documents to both sides
(tests/cluster/test_crd_fuzz.py).

Patterns are written in what Python's ``re`` and RE2 read alike: ASCII classes spelled out, no ``\\w``, ``\\s``, ``$``
or lookahead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema


@dataclass(frozen=True)
class Rule:
    """What must hold of a value: of a field, in its annotation; of a whole model, in its ``rules``."""

    cel: str
    """The rule over ``self``."""
    holds: Callable[[Any], bool]
    """The same over the validated value."""
    message: str
    """What is wrong and what to do about it."""
    naming_values: Callable[[Any], str] | None = None
    """The same with the values, for the command: in CEL, turning a number into text costs more than a CRD may."""

    def check(self, value: Any) -> Any:
        """``value`` itself, if the rule holds.

        Raises:
            ValueError: it does not.
        """
        if not self.holds(value):
            raise ValueError(self.message if self.naming_values is None else self.naming_values(value))
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))


def form(pattern: str, message: str) -> Rule:
    """The whole string has the form ``pattern``."""
    compiled = re.compile(pattern)
    return Rule(
        f"self.matches(r'^(?:{pattern})$')",
        lambda value: compiled.fullmatch(value) is not None,
        f"write it as {message}",
    )


@dataclass(frozen=True)
class IntOrString:
    """A whole number or a string of the form ``pattern``, as Kubernetes' quantities are."""

    pattern: str
    max_length: int
    maximum: int
    message: str
    minimum: int = 0

    @property
    def cel(self) -> str:
        """The same over ``self``; the length is the schema's."""
        number = f"self >= {self.minimum} && self <= {self.maximum}"
        return f"type(self) == int ? {number} : self.matches(r'^(?:{self.pattern})$')"

    def check(self, value: Any) -> Any:
        """``value`` itself, if it is either.

        Raises:
            ValueError: it is neither.
        """
        if isinstance(value, str):
            if len(value) <= self.max_length and re.fullmatch(self.pattern, value):
                return value
        elif isinstance(value, int) and not isinstance(value, bool) and self.minimum <= value <= self.maximum:
            return value
        raise ValueError(self.message)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)


@dataclass(frozen=True)
class Keyed:
    """A list whose items differ in ``key`` (a Kubernetes map-list), or in themselves when it is empty (a set)."""

    key: str = ""

    def check(self, items: list[Any]) -> list[Any]:
        """``items`` itself, if none is there twice.

        Raises:
            ValueError: one is.
        """
        seen = set()
        for item in items:
            name = getattr(item, self.key) if self.key else item
            if name in seen:
                raise ValueError(
                    f"{name!r} is there twice; {f'give each a {self.key} of its own' if self.key else 'remove one'}"
                )
            seen.add(name)
        return items

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))


def of_kinds(kinds: Sequence[str]) -> str:
    """The message, behind the field's name, about a field that belongs to other kinds of a union."""
    if len(kinds) == 1:
        return f"is a field of kind {kinds[0]}; remove it or choose that kind"
    return f"is a field of kinds {' and '.join(kinds)}; remove it or choose one of them"
