"""Which nodes pods come to."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.rules import Rule
from selfevo_contract.spec.names import LabelKey, LabelValue


class Toleration(Closed):
    """A taint that pods put up with."""

    key: LabelKey | None = None
    """Key of the taint; every taint when not given."""
    operator: Literal["Exists", "Equal"] | None = None
    """Exists: whatever the taint's value is. Equal: the taint has this value; Kubernetes takes it when not given."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; every effect when not given."""
    toleration_seconds: Annotated[Whole, Field(ge=0, le=2**31 - 1)] | None = None
    """How long the pods stay where a taint with the effect NoExecute appears; for ever when not given."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.key) || has(self.operator) && self.operator == 'Exists'",
            lambda one: one.key is not None or one.operator == "Exists",
            "a toleration without a key needs operator Exists; add either",
        ),
        Rule(
            "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
            lambda one: one.operator != "Exists" or not one.value,
            "operator Exists takes no value; remove value or use operator Equal",
        ),
        Rule(
            "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
            lambda one: one.toleration_seconds is None or one.effect == "NoExecute",
            "tolerationSeconds needs effect NoExecute; set it or remove tolerationSeconds",
        ),
    )


Weight = Annotated[Whole, Field(ge=1, le=100)]


class NodeRequirement(Closed):
    """What the node's labels must be like, or had better be."""

    key: LabelKey
    """Key of the label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = "In"
    """How it is compared; In when not given."""
    values: Annotated[list[LabelValue], Field(max_length=16)] = []
    """With what, for In and NotIn."""
    weight: Weight | None = None
    """Only a preference, of this weight (1 to 100); a requirement when not given."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(!has(self.operator) || self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            lambda one: (one.operator in ("In", "NotIn")) == bool(one.values),
            "In and NotIn compare with values, Exists and DoesNotExist with none; add or remove values",
        ),
    )


class PodRequirement(Closed):
    """Where the other pods of the same step are."""

    topology_key: LabelKey
    """Label of nodes that counts as a place, e.g. topology.kubernetes.io/zone or kubernetes.io/hostname."""
    weight: Weight | None = None
    """Only a preference, of this weight (1 to 100); a requirement when not given."""


class Spread(Closed):
    """How the pods of a step are dealt out over places."""

    topology_key: LabelKey
    """Label of nodes that counts as a place, e.g. topology.kubernetes.io/zone or kubernetes.io/hostname."""
    max_skew: Annotated[Whole, Field(ge=1, le=1024)] = 1
    """Most that two places may differ by, in pods; 1 when not given."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = "DoNotSchedule"
    """Whether a pod waits where it cannot be kept; DoNotSchedule, so that it waits, when not given."""
