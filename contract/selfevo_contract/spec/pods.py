"""The fields of a pod that a run, or one of its parts, may set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from selfevo_contract.base import Closed, NoNulls, Whole
from selfevo_contract.rules import Keyed, form
from selfevo_contract.spec.environment import CaBundle, EnvVar
from selfevo_contract.spec.labels import AnnotationValue, FreeAnnotationKey, FreeLabelKey
from selfevo_contract.spec.names import LabelKey, LabelValue, Name, Quantity
from selfevo_contract.spec.placement import NodeRequirement, PodRequirement, Spread, Toleration
from selfevo_contract.spec.resources import ResourceClaim, Resources
from selfevo_contract.spec.volumes import Volume


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
    resource_claims: Annotated[list[ResourceClaim], Field(max_length=8), Keyed("name")] = []
    """Devices that the trainer gets by claims (Dynamic Resource Allocation), in place of GPUs in resources.limits or
    beside other devices there. Needs the platform's leave."""
    nodes: Annotated[Whole, Field(ge=1, le=64)] | None = None
    """Pods that train together, each on the GPUs of its limits or claims; 1 when not given. For phases that train."""
    join_seconds: Annotated[Whole, Field(ge=1, le=604_800)] | None = None
    """How long pods that train together wait for each other, from the start of each; 1800 when not given. Raise it
    where nodes come one by one, or an image takes longer than that on some of them."""
    gpu_memory: Quantity | None = None
    """Memory of each GPU that the pods get, e.g. 80Gi. A run of a known model that takes more is refused before
    anything is queued; it chooses no GPU, which nodeSelector does. Nothing is checked when not given."""
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
    """Further annotations of the pods: settings of autoscalers and of Kueue's topology-aware scheduling, e.g.
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
