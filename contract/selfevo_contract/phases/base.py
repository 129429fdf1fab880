"""What all phases are described by: the models that they read, and the facts of a kind of step (PhaseType)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from selfevo_contract.base import Sha256, Wire
from selfevo_contract.spec.engines import ENGINES


class BaseModelRef(Wire):
    """The base model."""

    kind: Literal["base"] = "base"
    uri: str
    digest: Sha256 | None = None


class StepModelRef(Wire):
    """The model that a step of this plan wrote."""

    kind: Literal["step"] = "step"
    phase: str
    key: Sha256


ModelRef = Annotated[BaseModelRef | StepModelRef, Field(discriminator="kind")]


class Loading(Wire):
    """How weights are loaded."""

    dtype: Literal["float32", "bfloat16", "float16"]
    trust_remote_code: bool
    stop_tokens: list[str] | None = None
    quantization: Literal["fp8"] | None = None
    """Of frozen weights, in the engine that serves them."""


@dataclass(frozen=True)
class PhaseType:
    """Everything about a phase that anyone outside of it needs to know. Nothing else branches on a phase's name."""

    inputs: type[Wire]
    """What determines its output; the default of its field `phase` is the phase's name."""
    part: str
    """The field of the spec that says how it runs: its engine, its pods, its checkpoints."""
    metrics: str
    """What its metrics are named by in the status: ``solver`` in ``solver/reward_last``."""
    title: str
    """What people call it."""
    makes: str
    """What people call its output; ``{}`` is the iteration."""
    models: tuple[str, ...]
    """The fields of its inputs that are models, in the order in which they are shown."""
    generates: tuple[tuple[str, str], ...] = ()
    """Those of them that it generates with, by the engine of its part. Each with the field of the sampling that,
    with `max_prompt_length`, bounds its sequences: empty where nothing bounds its prompts. A model may be None."""
    steps: tuple[tuple[str, str], ...] = ()
    """Fields of its inputs that are keys of other steps, or None, each with that step's phase."""
    sharded: bool = False
    """Its inputs have `shards`, which are no part of its key: parts that run independently, one pod each."""
    judged: bool = False
    """In a run with a Verifier the judge scores what its models write."""
    distributed: bool = False
    """Several processes can share it; the others run in one process."""
    trains_solver: bool = False
    """What it makes is the run's result: the Solver of its iteration."""
    scores: bool = False
    """Its metrics are the scores by which the best iteration is found."""
    kept: tuple[str, ...] = ()
    """Metrics, beside scores, that the record of a step that is long done keeps."""
    closes: bool = False
    """It comes after the last iteration, or after each, and is no part of it: nothing of an iteration waits for it."""
    publishes: bool = False
    """It computes nothing, and copies what there is to another place: it needs no GPU."""

    @property
    def name(self) -> str:
        """E.g. ``solver-train``; in names of steps, in labels of Jobs and in addresses of artifacts."""
        return str(self.inputs.model_fields["phase"].default)

    @property
    def engines(self) -> tuple[str, ...]:
        """The kinds of engine that this version has for it: a model that is being trained generates by transformers."""
        return tuple(ENGINES) if self.generates else ("transformers",)
