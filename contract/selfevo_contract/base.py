"""The one pydantic configuration of everything a person or a process writes for us: strict, closed, camelCase."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


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

    def wire(self) -> dict[str, object]:
        """The value as JSON-ready data in camelCase, unset optional values left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Wire(Closed):
    """What our own processes hand to each other: code may build it by the fields' Python names."""

    model_config = ConfigDict(validate_by_name=True)


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A sha256 digest as 64 lower-case hexadecimal digits."""
