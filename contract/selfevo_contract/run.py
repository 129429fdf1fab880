"""SelfEvolutionRun: the resource as a whole."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from selfevo_contract import reasons
from selfevo_contract.base import Closed
from selfevo_contract.errors import InputError
from selfevo_contract.phases import PHASES
from selfevo_contract.spec.names import DnsLabel
from selfevo_contract.spec.rewards import WITHOUT_LABELS
from selfevo_contract.spec.rollout import Rollout
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.status import RunStatus

API_VERSION = "selfevo.dev/v1alpha1"
KIND = "SelfEvolutionRun"


class Metadata(BaseModel):
    """The part of an object's metadata that we read. The rest belongs to Kubernetes and is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: DnsLabel
    namespace: DnsLabel = "default"
    uid: str = ""
    generation: int = 1


class SelfEvolutionRun(Closed):
    """A run of self-evolution training: a base model in, a better model in the object store."""

    api_version: Literal["selfevo.dev/v1alpha1"]
    """Version of the resource: selfevo.dev/v1alpha1."""
    kind: Literal["SelfEvolutionRun"]
    """Kind of the resource: SelfEvolutionRun."""
    metadata: Metadata
    """Name, namespace, labels and annotations. The name is at most 63 characters long."""
    spec: RunSpec
    """What is asked for."""
    status: RunStatus | None = None
    """Where the run stands; written by the operator alone."""


NOT_BUILT: dict[str, str] = {}
"""Fields of the spec that this version does not have, with what they ask for."""


def refuse_what_is_not_built(spec: RunSpec) -> None:
    """A spec may name what has its place in the plan and is not built yet; such a run must not start.

    Raises:
        InputError: one sentence that names the field.
    """
    for field, what in NOT_BUILT.items():
        if getattr(spec, field) is not None:
            alias = RunSpec.model_fields[field].alias
            raise InputError(
                f"spec.{alias} asks for {what}, which this version of selfevo does not have yet; remove spec.{alias}",
                reason=reasons.NOT_BUILT,
            )
    if spec.verifier is not None:
        _refuse_labels(spec.rollout)
        if spec.finetune is not None and spec.finetune.kind == "grpo":
            raise InputError(
                "spec.finetune.kind is 'grpo', paid by spec.solver.reward, and in a run with spec.verifier that "
                "compares no answer with a label; set it to sft"
            )
    mode = spec.solver.reward.mode
    if spec.finetune is not None and spec.finetune.kind == "grpo" and mode in WITHOUT_LABELS:
        raise InputError(
            f"spec.finetune.kind is 'grpo', paid by spec.solver.reward, whose mode {mode!r} uses no label; set it "
            "to sft"
        )
    for phase in PHASES.values():
        engine = getattr(getattr(spec, phase.part), "engine", None)
        if engine is not None and engine.kind not in phase.engines:
            raise InputError(
                f"spec.{phase.part}.engine.kind asks for {engine.kind!r}, which this version of selfevo does not have "
                f"yet; use {' or '.join(map(repr, phase.engines))}",
                reason=reasons.NOT_BUILT,
            )


def _refuse_labels(rollout: Rollout) -> None:
    named = {
        "oracle": rollout.oracle is not None,
        "wellFormed": bool(rollout.well_formed),
        "labels": rollout.labels != "majority",
    }
    for field, given in named.items():
        if given:
            raise InputError(
                f"spec.rollout.{field} is about answers in boxes, and in a run with spec.verifier a judge scores whole "
                f"answers; remove spec.rollout.{field}"
            )
