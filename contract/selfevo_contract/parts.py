"""The parts of a spec that say where and how long pods run, and those whose phases come later."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed, NoNulls, Whole
from selfevo_contract.rules import IntOrString, Keyed, Rule, form
from selfevo_contract.uris import StoreUri

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
Duration = Annotated[str, Field(max_length=32), form("([0-9]+(ms|s|m|h))+", "a duration such as 90m, 72h or 1h30m")]

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
        f"cpu|memory|ephemeral-storage|{_SUBDOMAIN}/{_SHORT}",
        "cpu, memory, ephemeral-storage or a device plugin's name such as nvidia.com/gpu",
    ),
]
Quantities = Annotated[dict[ResourceName, Quantity], NoNulls, Field(max_length=32)]


class Resources(Closed):
    """Requests and limits of a pod's main container."""

    requests: Quantities = {}
    """What the scheduler sets aside, e.g. {cpu: 8, memory: 64Gi}."""
    limits: Quantities = {}
    """The most it may use, e.g. {nvidia.com/gpu: 8}."""


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
            "operator Exists looks at no value; remove value or use operator Equal",
        ),
        Rule(
            "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
            lambda one: one.toleration_seconds is None or one.effect == "NoExecute",
            "tolerationSeconds needs effect NoExecute; set it or remove tolerationSeconds",
        ),
    )


OUR_VARIABLES = (
    "JOB_COMPLETION_INDEX",
    "MASTER_ADDR",
    "MASTER_PORT",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
"""Environment variables that selfevo sets itself, beside all of SELFEVO_* and PET_* (torch's elastic launcher)."""


class EnvVar(Closed):
    """An environment variable with a plain value."""

    name: Annotated[
        str,
        Field(max_length=256),
        form("[A-Za-z_][A-Za-z0-9_]*", "letters, digits and '_', not beginning with a digit"),
        Rule(
            f"!self.startsWith('SELFEVO_') && !self.startsWith('PET_') && !(self in {[*OUR_VARIABLES]!r})",
            lambda name: not name.startswith(("SELFEVO_", "PET_")) and name not in OUR_VARIABLES,
            "selfevo sets this variable itself; remove it (credentials come from storage.credentialsSecret)",
        ),
    ]
    """Its name."""
    value: Annotated[str, Field(max_length=32768), form(r"[^\x00]*", "text without a NUL character")] = ""
    """Its value."""


class Pods(Closed):
    """The fields of a pod that a run may set: a list, not a PodSpec. A part's own go over spec.pods."""

    image: (
        Annotated[str, Field(max_length=1024), form(r"[^\x00-\x20\x7f]+", "the name of an image, without spaces")]
        | None
    ) = None
    """The trainer image; the operator's own choice when not given."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When the image is fetched; Kubernetes decides by its tag when not given."""
    image_pull_secrets: Annotated[list[Name], Field(max_length=16), Keyed()] = []
    """Secrets for the image's registry."""
    resources: Resources = Resources()
    """Requests and limits."""
    nodes: Annotated[Whole, Field(ge=1, le=64)] | None = None
    """Pods that train together, each on the GPUs of its limits; 1 when not given. For the phases that train."""
    join_seconds: Annotated[Whole, Field(ge=1, le=604_800)] | None = None
    """How long pods that train together wait for each other, from the start of each; 1800 when not given. Raise it
    where nodes come one by one, or an image takes longer than that on some of them."""
    shared_memory: Quantity | None = None
    """Size of /dev/shm, e.g. 16Gi; the container runtime's 64Mi when not given."""
    scratch: Quantity | None = None
    """Most that the working folder may take of the node's disk, e.g. 200Gi; no limit when not given."""
    node_selector: Annotated[dict[LabelKey, LabelValue], NoNulls, Field(max_length=64)] = {}
    """Labels that the node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=64)] = []
    """Taints that the pods put up with."""
    priority_class_name: Name | None = None
    """Priority class of the pods."""
    runtime_class_name: Name | None = None
    """Runtime class of the pods, e.g. nvidia."""
    service_account_name: Name | None = None
    """Identity of the pods."""
    env: Annotated[list[EnvVar], Field(max_length=128), Keyed("name")] = []
    """Further environment variables."""
    active_deadline_seconds: Annotated[Whole, Field(ge=1, le=2**31 - 1)] | None = None
    """A Job of the phase that takes longer fails; no limit when not given."""
    termination_grace_period_seconds: Annotated[Whole, Field(ge=1, le=3600)] | None = None
    """Time to write a checkpoint after SIGTERM; the operator's own choice when not given."""


class Verifier(Closed):
    """The third role (docs/method.md, «Verifier»)."""

    max_steps: Annotated[Whole, Field(ge=0, le=1_000_000)] = 8
    """Optimizer steps an iteration."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-7
    """AdamW's learning rate."""
    batch_size: Annotated[Whole, Field(ge=1, le=1_000_000)] = 64
    """Pairs in one step."""
    pods: Pods = Pods()
    """Pods of its phase, over spec.pods."""


class Finetune(Closed):
    """Supervised training on labelled data after the last iteration."""

    data: StoreUri
    """JSON lines with the columns question and answer."""
    max_steps: Annotated[Whole, Field(ge=1, le=1_000_000)] = 100
    """Optimizer steps."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-6
    """AdamW's learning rate."""
    pods: Pods = Pods()
    """Pods of its phase, over spec.pods."""


class Guards(Closed):
    """When a run that goes wrong is stopped."""

    max_score_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """Stop when the score falls this far below the best."""
    min_in_band: Annotated[float, Field(ge=0, le=1)] | None = None
    """Stop when a smaller share of questions than this falls into the band."""


class Budget(Closed):
    """What a run may cost."""

    wall_time: Duration | None = None
    """Stop after this long, e.g. 72h."""
    gpu_hours: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Stop after so many GPU hours."""


class ForkFrom(Closed):
    """Another run's iteration to start from."""

    run: DnsLabel
    """Name of the run."""
    iteration: Annotated[Whole, Field(ge=0, le=1000)]
    """Its iteration; 0 is its base model."""
