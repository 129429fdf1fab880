"""What the operator's flags decide for the pods of every run."""

from __future__ import annotations

from dataclasses import dataclass, field

from selfevo_contract.spec.pods import Pods


@dataclass(frozen=True)
class PodSettings:
    """Every field has a flag of its own (runtime/settings.py)."""

    image: str = ""
    """Trainer image where a run names none."""
    image_pull_policy: str | None = None
    """Where a run gives none; Kubernetes' own default when not given."""
    run_as_user: int | None = 10001
    """User of every container; None where the platform gives one (OpenShift)."""
    run_as_group: int | None = 10001
    fs_group: int | None = 10001
    gpu_resource: str = "nvidia.com/gpu"
    """What the GPUs of a served model are called where the phase itself asks for none."""
    gpu_resources: tuple[str, ...] = ("*/gpu",)
    """Resources that count as GPUs, with `*` for any text: a training has a process for each."""
    host_network: bool = False
    """Whether a run may have its pods on their node's network."""
    resource_claim_templates: tuple[str, ...] = ()
    """ResourceClaimTemplates that a run's pods may name, with `*` at the end for names that begin so."""
    resource_claims: tuple[str, ...] = ()
    """The same of ResourceClaims."""
    collector: tuple[str, str] | None = None
    """The variable by which trainers know where traces are sent, and its value: the operator's own; None for nowhere.
    It has no flag."""
    defaults: Pods = field(default_factory=Pods)
    """What every run's spec.pods begins from."""
