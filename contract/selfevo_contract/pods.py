"""What a run asks of a phase's pods: the part's fields over spec.pods. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from selfevo_contract.errors import InputError
from selfevo_contract.phases import PHASES, Phase
from selfevo_contract.process import part_of
from selfevo_contract.spec.environment import EnvVar
from selfevo_contract.spec.pods import Pods
from selfevo_contract.spec.resources import ResourceClaim, Resources
from selfevo_contract.spec.run import RunSpec

GRACE_SECONDS = 120
"""From SIGTERM to SIGKILL where a run does not say: the pass under way, and the newest checkpoint to the store."""


def merged(base: Pods, part: Pods) -> Pods:
    """``part`` over ``base`` (spec.pods), field by field.

    What the part does not set (None, or nothing in it) is inherited. Environment, labels, annotations, node selector,
    resources and claims of devices are merged by name, and the part wins; every other list replaces the inherited one
    as a whole. So a part cannot take away what it inherits except by naming it, as in {nvidia.com/gpu: 0}; a claim it
    can only replace.
    """
    return _merged(_Same(base), _Same(part))


class _Same:
    """Pods as a key: the very same object, which is frozen."""

    def __init__(self, pods: Pods) -> None:
        self.pods = pods

    def __hash__(self) -> int:
        return id(self.pods)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.pods is self.pods


@lru_cache(maxsize=32)  # whoever renders a Job asks nine times, in a row
def _merged(base: _Same, part: _Same) -> Pods:
    return base.pods.model_copy(
        update={name: _over(getattr(base.pods, name), getattr(part.pods, name)) for name in Pods.model_fields}
    )


def _over(base: Any, part: Any) -> Any:
    if isinstance(part, Resources):
        return part.model_copy(
            update={"requests": {**base.requests, **part.requests}, "limits": {**base.limits, **part.limits}}
        )
    if isinstance(part, Mapping):
        return {**base, **part}
    if isinstance(part, list) and part and isinstance(part[0], EnvVar | ResourceClaim):
        return list({named.name: named for named in [*base, *part]}.values())
    return base if part is None or part == [] else part


def pods_of(spec: RunSpec, phase: Phase) -> Pods:
    """The pods of a phase."""
    own = _own(spec, phase)
    inherited = without_devices(spec.pods) if PHASES[phase].publishes else spec.pods
    return inherited if own is None else merged(inherited, own)


def without_devices(pods: Pods) -> Pods:
    """``pods`` for a phase that computes nothing: the devices that they ask for would lie idle."""

    def plain(amounts: Mapping[str, Any]) -> dict[str, Any]:
        return {name: amount for name, amount in amounts.items() if "/" not in name}

    asked = pods.resources
    resources = asked.model_copy(update={"requests": plain(asked.requests), "limits": plain(asked.limits)})
    return pods.model_copy(update={"resources": resources, "resource_claims": [], "nodes": None})


def field_of(phase: Phase) -> str:
    """Where a person changes the pods of this phase alone."""
    return f"spec.{PHASES[phase].part}.pods"


def written_in(spec: RunSpec, phase: Phase, name: str) -> str:
    """Where a person wrote the field ``name`` of the phase's pods: at the part, or at spec.pods, whose it inherits."""
    own = _own(spec, phase)
    return "spec.pods" if own is None or getattr(own, name) is None else field_of(phase)


def limit_written_in(spec: RunSpec, phase: Phase, resource: str) -> str:
    """Where a person wrote the phase's limit of ``resource``, likewise: limits are inherited one by one."""
    own = _own(spec, phase)
    return "spec.pods" if own is None or resource not in own.resources.limits else field_of(phase)


def nodes_of(spec: RunSpec, phase: Phase) -> int:
    """Pods that train together. A phase that is no such training has one, whatever spec.pods says of the others.

    Raises:
        InputError: such a phase asks for several by itself.
    """
    if PHASES[phase].distributed:
        return pods_of(spec, phase).nodes or 1
    own = _own(spec, phase)
    if own is not None and (own.nodes or 1) > 1:
        field = f"{field_of(phase)}.nodes"
        remedy = f"use spec.{PHASES[phase].part}.shards" if PHASES[phase].sharded else f"remove {field}"
        raise InputError(f"{field} is {own.nodes}, and this phase does not run on several nodes; {remedy}")
    return 1


def refuse_odd_keys(pods: Pods, field: str) -> None:
    """A label's key may be longer in the contract than the API server takes it: 253 characters before the '/'.

    Raises:
        InputError: the first such key.
    """
    keys = [(f"{field}.nodeSelector", key) for key in pods.node_selector]
    keys += [(f"{field}.labels", key) for key in pods.labels] + [
        (f"{field}.annotations", key) for key in pods.annotations
    ]
    keys += [(f"{field}.nodeAffinity", one.key) for one in pods.node_affinity]
    keys += [(f"{field}.podAffinity", one.topology_key) for one in [*pods.pod_affinity, *pods.pod_anti_affinity]]
    keys += [(f"{field}.topologySpreadConstraints", one.topology_key) for one in pods.topology_spread_constraints]
    keys += [(f"{field}.tolerations[{n}].key", one.key or "") for n, one in enumerate(pods.tolerations)]
    for where, key in keys:
        if len(key.rpartition("/")[0]) > 253:
            raise InputError(f"{where} has the key {key!r}, with more than 253 characters before the '/'; correct it")


def _own(spec: RunSpec, phase: Phase) -> Pods | None:
    pods: Pods | None = getattr(part_of(spec, phase), "pods", None)
    return pods
