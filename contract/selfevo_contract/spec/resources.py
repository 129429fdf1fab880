"""CPU, memory and devices of a pod."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfevo_contract.base import Closed, NoNulls
from selfevo_contract.spec.names import Quantity, ResourceName

Quantities = Annotated[dict[ResourceName, Quantity], NoNulls, Field(max_length=32)]


class Resources(Closed):
    """Requests and limits of a pod's main container."""

    requests: Quantities = {}
    """What the scheduler sets aside, e.g. {cpu: 8, memory: 64Gi}."""
    limits: Quantities = {}
    """The most it may use, e.g. {nvidia.com/gpu: 8}."""
