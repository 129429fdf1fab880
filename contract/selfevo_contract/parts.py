"""The parts of a spec that say where and how long pods run, and those whose phases come later."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfevo_contract.base import Closed

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Quantity = Annotated[str | int, Field(union_mode="left_to_right")]
Duration = Annotated[str, Field(pattern=r"^([0-9]+(ms|s|m|h))+$")]


class Resources(Closed):
    """Requests and limits of a pod's main container."""

    requests: dict[str, Quantity] = {}
    """What the scheduler sets aside, e.g. {cpu: 8, memory: 64Gi}."""
    limits: dict[str, Quantity] = {}
    """The most it may use, e.g. {nvidia.com/gpu: 8}."""


class Toleration(Closed):
    """A taint that pods put up with."""

    key: str | None = None
    """Key of the taint."""
    operator: str | None = None
    """Exists or Equal."""
    value: str | None = None
    """Value of the taint."""
    effect: str | None = None
    """Effect of the taint."""
    toleration_seconds: int | None = None
    """How long."""


class EnvVar(Closed):
    """An environment variable with a plain value."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]
    """Its name."""
    value: Annotated[str, Field(max_length=32768)] = ""
    """Its value."""


class Pods(Closed):
    """The fields of a pod that a run may set: a list, not a PodSpec."""

    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """The trainer image."""
    resources: Resources = Resources()
    """Requests and limits."""
    node_selector: dict[str, str] = {}
    """Labels that the node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=64)] = []
    """Taints that the pods put up with."""
    priority_class_name: Name | None = None
    """Priority class of the pods."""
    service_account_name: Name | None = None
    """Identity of the pods."""
    env: Annotated[list[EnvVar], Field(max_length=128)] = []
    """Further environment variables."""


class Verifier(Closed):
    """The third role (docs/method.md, «Verifier»)."""

    max_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 8
    """Optimizer steps an iteration."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-7
    """AdamW's learning rate."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Pairs in one step."""
    pods: Pods = Pods()
    """Pods of its phase, over spec.pods."""


class Finetune(Closed):
    """Supervised training on labelled data after the last iteration."""

    data: Annotated[str, Field(min_length=1, max_length=2048)]
    """JSON lines with the columns question and answer."""
    max_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 100
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
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """Stop after so many GPU hours."""


class ForkFrom(Closed):
    """Another run's iteration to start from."""

    run: Name
    """Name of the run."""
    iteration: Annotated[int, Field(ge=0, le=1000)]
    """Its iteration; 0 is its base model."""
