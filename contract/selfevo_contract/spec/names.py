"""Names, labels and quantities, as Kubernetes writes them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from selfevo_contract.rules import IntOrString, form

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = f"{_LABEL}([.]{_LABEL})*"
_NAME = form(_SUBDOMAIN, "lower-case letters, digits, '-' and '.', with a letter or digit at both ends of each part")

Name = Annotated[str, Field(max_length=253), _NAME]
"""The name of an object."""
LabelName = Annotated[str, Field(max_length=63), _NAME]
"""The name of an object that also stands in a label."""
DnsLabel = Annotated[
    str,
    Field(max_length=63),
    form(_LABEL, "lower-case letters, digits and '-', with a letter or digit at both ends"),
]
"""The name of an object that also stands in a host name."""

Quantity = Annotated[
    str | int,
    IntOrString(
        "[0-9]+([.][0-9]+)?([numkMGTPE]|[KMGTPE]i|[eE][0-9]{1,2})?",
        max_length=32,
        maximum=10**15,
        message="write a quantity such as 8, 500m or 64Gi",
    ),
]
"""A Kubernetes quantity that is not negative."""
Size = Annotated[
    str | int,
    IntOrString(
        "[0-9]*[1-9][0-9]*([.][0-9]+)?([kMGTPE]|[KMGTPE]i|[eE][0-9]{1,2})?",
        max_length=32,
        maximum=10**15,
        minimum=1,
        message="write a size above zero such as 500Gi or 2Ti",
    ),
]
"""A Kubernetes quantity of at least one byte: what a claim may ask for."""

_DURATION = "([0-9]+(ms|s|m|h))+"
Duration = Annotated[str, Field(max_length=32), form(_DURATION, "a duration such as 90m, 72h or 1h30m")]
Interval = Annotated[
    str | int,
    IntOrString(
        _DURATION,
        max_length=32,
        maximum=1_000_000,
        minimum=1,
        message="write a number of steps, or a duration such as 10m",
    ),
]
"""So many steps, or so long."""

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(duration: str) -> float:
    """A `Duration` in seconds: ``1h30m`` is 5400."""
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall("([0-9]+)(ms|s|m|h)", duration))


_SHORT = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LabelKey = Annotated[
    str,
    Field(max_length=317),
    form(f"({_SUBDOMAIN}/)?{_SHORT}", "the key of a label, such as pool or example.com/pool"),
]
LabelValue = Annotated[
    str,
    Field(max_length=63),
    form(f"({_SHORT})?", "letters, digits, '-', '_' and '.', at most 63 of them"),
]
ResourceName = Annotated[
    str,
    Field(max_length=317),
    form(
        f"cpu|memory|ephemeral-storage|hugepages-(2Mi|1Gi)|{_SUBDOMAIN}/{_SHORT}",
        "cpu, memory, ephemeral-storage, hugepages-2Mi, hugepages-1Gi or a device plugin's name such as nvidia.com/gpu",
    ),
]
