"""CPU, memory and devices of a pod."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from selfevo_contract.base import Closed, NoNulls, Whole
from selfevo_contract.rules import Rule
from selfevo_contract.spec.names import DnsLabel, Name, Quantity, ResourceName

Quantities = Annotated[dict[ResourceName, Quantity], NoNulls, Field(max_length=32)]


class Resources(Closed):
    """Requests and limits of a pod's main container."""

    requests: Quantities = {}
    """What the scheduler sets aside, e.g. {cpu: 8, memory: 64Gi}."""
    limits: Quantities = {}
    """The most it may use, e.g. {nvidia.com/gpu: 8}."""


class ResourceClaim(Closed):
    """Devices by Dynamic Resource Allocation (resource.k8s.io/v1, Kubernetes 1.34 or newer): by a template,
    of which each pod gets a claim of its own, or by a claim that is there.
    """

    name: DnsLabel
    """Its name; a part's own goes over the one of this name in spec.pods."""
    resource_claim_template_name: Name | None = None
    """A ResourceClaimTemplate in the run's namespace."""
    resource_claim_name: Name | None = None
    """A ResourceClaim in the run's namespace, which all pods share that name it."""
    request: DnsLabel | None = None
    """The request of the claim whose devices the trainer sees; those of all its requests when not given."""
    gpus: Annotated[Whole, Field(ge=0, le=64)] | None = None
    """GPUs that a pod has by it: a training has a process for each. A phase that trains needs it, for one claim at
    least, where resources.limits has no GPUs; 0 is an answer."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.resourceClaimTemplateName) != has(self.resourceClaimName)",
            lambda claim: (claim.resource_claim_template_name is None) != (claim.resource_claim_name is None),
            "a claim is made by resourceClaimTemplateName or named by resourceClaimName; write one of them",
        ),
    )
