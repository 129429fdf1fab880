"""The parts of a spec that say where and how long pods run, and those whose phases come later."""

from __future__ import annotations

import re
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
        f"cpu|memory|ephemeral-storage|hugepages-(2Mi|1Gi)|{_SUBDOMAIN}/{_SHORT}",
        "cpu, memory, ephemeral-storage, hugepages-2Mi, hugepages-1Gi or a device plugin's name such as nvidia.com/gpu",
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


class SecretKeyRef(Closed):
    """One key of a Secret in the run's namespace. Who writes the run must be allowed to `get` it."""

    name: Name
    """The Secret."""
    key: Annotated[str, Field(max_length=253), form("[-._A-Za-z0-9]+", "letters, digits, '-', '_' and '.'")]
    """Its key."""
    optional: bool = False
    """Start without the variable where Secret or key is not there; the pod waits for them when false or not given."""


class ValueFrom(Closed):
    """Where a value comes from."""

    secret_key_ref: SecretKeyRef
    """One key of a Secret."""


class EnvVar(Closed):
    """An environment variable, with a plain value or one from a Secret."""

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
    """Its value, which all see who may read the run."""
    value_from: ValueFrom | None = None
    """A Secret that holds it, for tokens such as HF_TOKEN; the server of a model gets none."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.valueFrom) || !has(self.value) || self.value == ''",
            lambda variable: variable.value_from is None or not variable.value,
            "value and valueFrom are both given; remove one",
        ),
    )


_RESERVED = (
    "(.*[.-])?(kubernetes|k8s)[.]io/.*|(.*[.])?selfevo[.]dev/.*|job-name|controller-uid"
    # container runtimes act upon these: devices, other hypervisors, other users
    "|io[.](kubernetes|containerd|katacontainers)[.].*|dev[.]gvisor[.].*|(.*[.])?(crio|cri-o|nri|gvisor)[.](io|dev)(/.*)?"
)
_FOR_SCHEDULERS = (
    "(cluster-autoscaler|descheduler[.]alpha|controller)[.]kubernetes[.]io/.*|kueue[.]x-k8s[.]io/podset-.*"
)
_IS_RESERVED, _IS_FOR_SCHEDULERS = re.compile(_RESERVED), re.compile(_FOR_SCHEDULERS)


def is_free_label(key: str) -> bool:
    """Whether a label means nothing to Kubernetes, to a container runtime or to selfevo."""
    return not _IS_RESERVED.fullmatch(key)


def is_free_annotation(key: str) -> bool:
    """The same of an annotation of pods, beside those that tell autoscaler, descheduler and Kueue something."""
    return not _IS_RESERVED.fullmatch(key) or _IS_FOR_SCHEDULERS.fullmatch(key) is not None


_TAKEN = "keys of Kubernetes, container runtimes and selfevo are not set by hand; choose another"
FreeLabelKey = Annotated[
    LabelKey,
    Rule(f"!self.matches(r'^(?:{_RESERVED})$')", is_free_label, f"{_TAKEN} (a queue is named by spec.queue)"),
]
FreeAnnotationKey = Annotated[
    LabelKey,
    Rule(
        f"!self.matches(r'^(?:{_RESERVED})$') || self.matches(r'^(?:{_FOR_SCHEDULERS})$')",
        is_free_annotation,
        f"{_TAKEN} (autoscalers, descheduler and kueue.x-k8s.io/podset-* excepted)",
    ),
]
AnnotationValue = Annotated[str, Field(max_length=4096), form(r"[^\x00]*", "text without a NUL character")]


class Claim(Closed):
    """A PersistentVolumeClaim in the run's namespace."""

    claim_name: Name
    """Its name."""
    read_only: bool = False
    """Mount it so that nothing can be written; false when not given."""


class EphemeralClaim(Closed):
    """A volume that is made for each pod, and removed with it."""

    size: Size
    """How large, e.g. 2Ti."""
    storage_class_name: Name | None = None
    """Its storage class; the cluster's default when not given."""


class Volume(Closed):
    """A volume of the pods, beside the working folder: a model cache that lasts, or a disk larger than the node's."""

    name: Annotated[DnsLabel, Field(max_length=40)]
    """Its name."""
    mount_path: Annotated[
        str,
        Field(max_length=128),
        form("/work/(cache|phase)|/mnt/[A-Za-z0-9_][-A-Za-z0-9_.]*", "/work/cache, /work/phase or /mnt/<name>"),
    ]
    """Where it is seen: /work/cache is what models and data are kept in, /work/phase is a step's own disk, /mnt/<name>
    is for model.uri file:///mnt/<name>/... and the like."""
    persistent_volume_claim: Claim | None = None
    """A claim that is there. Pods of several runs and nodes share it: ReadWriteMany, or ReadOnlyMany and readOnly."""
    ephemeral: EphemeralClaim | None = None
    """One of the pod's own."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.persistentVolumeClaim) != has(self.ephemeral)",
            lambda volume: (volume.persistent_volume_claim is None) != (volume.ephemeral is None),
            "a volume is a persistentVolumeClaim or ephemeral; write one of them",
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


class CaBundle(Closed):
    """Certificates of the authorities that pods believe, in place of those of the image.

    Also the public ones, where a run reaches a store or a hub on the internet.
    """

    config_map: Name
    """A ConfigMap in the run's namespace."""
    key: Annotated[str, Field(max_length=253), form("[-._A-Za-z0-9]+", "letters, digits, '-', '_' and '.'")] = "ca.crt"
    """Its key; the value is a list of certificates in PEM."""


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
    labels: Annotated[dict[FreeLabelKey, LabelValue], NoNulls, Field(max_length=16)] = {}
    """Further labels of Jobs and pods, e.g. {cost-center: nlp}."""
    annotations: Annotated[dict[FreeAnnotationKey, AnnotationValue], NoNulls, Field(max_length=16)] = {}
    """Further annotations of the pods: what autoscalers and Kueue's topology-aware scheduling are told, e.g.
    {kueue.x-k8s.io/podset-required-topology: cloud.example/rack}."""
    volumes: Annotated[list[Volume], Field(max_length=8), Keyed("name")] = []
    """Volumes beside the working folder."""
    node_affinity: Annotated[list[NodeRequirement], Field(max_length=16)] = []
    """Labels of nodes that are required or preferred; all requirements hold together."""
    pod_affinity: Annotated[list[PodRequirement], Field(max_length=4)] = []
    """The pods of a step come to one place, e.g. a rack."""
    pod_anti_affinity: Annotated[list[PodRequirement], Field(max_length=4)] = []
    """The pods of a step keep to different places."""
    topology_spread_constraints: Annotated[list[Spread], Field(max_length=4)] = []
    """The pods of a step are dealt out over places."""
    ca_bundle: CaBundle | None = None
    """Authorities that Python, boto3, requests and the hub's client believe, by SSL_CERT_FILE, REQUESTS_CA_BUNDLE and
    AWS_CA_BUNDLE; the image's own when not given."""
    host_network: bool | None = None
    """The pods are on their node's network, as RDMA over some fabrics asks for; false when not given. Pods that train
    together then take a node each. Needs the platform's leave, and a namespace that does not enforce PodSecurity."""
    scheduler_name: Name | None = None
    """Scheduler of the pods; the cluster's own when not given."""
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
