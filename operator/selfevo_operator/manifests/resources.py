"""Requests and limits of a container: what the API server would refuse is refused here, and the GPUs are counted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase

from selfevo_contract.errors import InputError
from selfevo_contract.spec.names import Quantity
from selfevo_contract.spec.resources import Resources

_SUFFIX = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    **{name: Decimal(1000) ** power for power, name in enumerate("MGTPE", start=2)},
    **{f"{name}i": Decimal(1024) ** power for power, name in enumerate("KMGTPE", start=1)},
}
_PAGES = {"hugepages-2Mi": 2**21, "hugepages-1Gi": 2**30}
"""Resources that are pages of the node's memory, and the bytes of one."""
_DIGITS = re.compile(r"[0-9.]+([eE][0-9]+)?")


def amount(quantity: Quantity) -> Decimal:
    """A quantity as a number: ``500m`` is 0.5, ``64Gi`` is 68719476736."""
    text = str(quantity)
    number = _DIGITS.match(text)
    assert number is not None, text  # the contract takes quantities only
    return Decimal(number[0]) * _SUFFIX[text[number.end() :]]


def resources(asked: Resources, field: str) -> dict[str, dict[str, Quantity]]:
    """A container's ``resources``; empty when nothing is asked for.

    A device, such as a GPU, is set aside whole, as huge pages are: its request is its limit. So a part of the
    spec that lowers an inherited limit of devices need not know that there was a request.

    Raises:
        InputError: a name that is no resource of a container, a part of a device, or a request above its limit.
    """
    for kind, quantities in (("requests", asked.requests), ("limits", asked.limits)):
        for name, quantity in quantities.items():
            _check(f"{field}.{kind}.{name}", name, quantity)
    requests = {}
    for name, quantity in asked.requests.items():
        limit = asked.limits.get(name)
        if "/" in name or name in _PAGES:
            if limit is None:
                what = "huge pages" if name in _PAGES else "devices"
                raise InputError(
                    f"{field}.requests.{name} is {quantity} without a limit, and {what} are set aside whole; "
                    f"write it as {field}.limits.{name}"
                )
            continue
        if limit is not None and amount(quantity) > amount(limit):
            raise InputError(
                f"{field}.requests.{name} is {quantity}, above its limit {limit}; lower the request or raise the limit "
                "(what a part of the spec does not set, it inherits from spec.pods)"
            )
        requests[name] = quantity
    # No pages are none at all: the API server wants cpu or memory beside a limit of 0, too.
    limits = {name: limit for name, limit in asked.limits.items() if name not in _PAGES or amount(limit)}
    pages = [name for name in _PAGES if name in limits]
    if pages and not {"cpu", "memory"} & (set(requests) | set(limits)):
        raise InputError(f"{field}.limits.{pages[0]} needs cpu or memory beside it; add {field}.requests.memory")
    shown = {"requests": requests, "limits": limits}
    return {kind: dict(sorted(quantities.items())) for kind, quantities in shown.items() if quantities}


def gpu(limits: Mapping[str, Quantity], field: str, names: Sequence[str] = ("*/gpu",)) -> tuple[str | None, int]:
    """Name of the resource that counts GPUs and how many the container gets.

    Args:
        names: What such resources are called, with ``*`` for any text: ``*/gpu``, ``nvidia.com/mig-*``.

    Raises:
        InputError: GPUs of two vendors.
    """
    found = {name: int(amount(quantity)) for name, quantity in limits.items() if _is_gpu(name, names)}
    used = {name: count for name, count in found.items() if count}
    if len(used) > 1:
        raise InputError(f"{field}.limits has GPUs of two kinds, {' and '.join(sorted(used))}; set one of them to 0")
    name = next(iter(used or found), None)
    return name, found.get(name or "", 0)


def counted(devices: Iterable[tuple[str, int]], names: Sequence[str]) -> int:
    """How many of ``devices``, names of resources with their numbers, are GPUs by ``names`` (see `gpu`)."""
    return sum(count for name, count in devices if _is_gpu(name, names))


def _is_gpu(name: str, names: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in names)


def _check(path: str, name: str, quantity: Quantity) -> None:
    domain, _, device = name.partition("/")
    if domain.endswith("kubernetes.io") or domain.startswith("requests.") or len(domain) > 244:
        raise InputError(f"{path} is not a resource of a container; use a device plugin's name such as nvidia.com/gpu")
    value = amount(quantity)
    page = _PAGES.get(name)
    if page is not None and (value != int(value) or int(value) % page):
        size = name.removeprefix("hugepages-")
        raise InputError(f"{path} is {quantity!r}, and a page is {size}; write a multiple of {size}")
    if device and value != int(value):
        raise InputError(f"{path} is {quantity!r}, and devices are not shared; it must be a whole number")
