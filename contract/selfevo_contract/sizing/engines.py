"""`engines: auto`: frozen models answer by vLLM where the pods' GPUs have room for it (docs/sizing.md). Pure.

An engine is no part of a step's key, and may be another one while the run goes on: what is chosen follows from the spec
as it stands, and is recorded for people. In a manifest that an API server has completed nobody can tell an engine of
kind transformers that a person wrote from none, so that it is taken for none.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import floor

from pydantic import PrivateAttr

from selfevo_contract.errors import InputError
from selfevo_contract.phases import CHALLENGER_TRAIN, EVALUATE, SOLVER_ROLLOUT
from selfevo_contract.pods import pods_of
from selfevo_contract.sizing.architecture import Architecture, known
from selfevo_contract.sizing.fit import gib
from selfevo_contract.sizing.memory import (
    CONTEXT_GIB,
    GIB,
    PROMPT_TOKENS,
    RESERVE,
    judge_model,
    judge_reading,
    named_gpus,
    needs,
)
from selfevo_contract.spec.engines import Engine, TransformersEngine, VllmEngine
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.spec.verifier import Verifier
from selfevo_contract.status import ChosenEngines


class Chosen(VllmEngine):
    """vLLM in place of an engine that the spec has, which is back where `engines: auto` goes."""

    _asked: TransformersEngine = PrivateAttr(default=TransformersEngine())

    def in_place_of(self, engine: TransformersEngine) -> Chosen:
        """The same settings, for ``engine``."""
        made = self.model_copy()
        made._asked = engine
        return made

    @property
    def asked(self) -> TransformersEngine:
        """The engine that the spec has."""
        return self._asked


PARTS = {"challenger": CHALLENGER_TRAIN.name, "rollout": SOLVER_ROLLOUT.name, "evaluation": EVALUATE.name}
"""Parts of a spec with an engine, and the phase that it is of."""
ALONE = Chosen(kind="vllm", gpuMemoryUtilization=0.9)
"""Of a rollout and an evaluation; less of the GPU where a judge is read on it."""
BESIDE = Chosen(kind="vllm", enableSleepMode=True)
"""Of a Challenger, which is trained on the same GPU."""
SEQUENCES = 16
"""At once, for which there has to be room."""
HOTTEST = 2.0
"""Temperature that vLLM takes at most."""


def with_engines(spec: RunSpec) -> RunSpec:
    """``spec`` with the engines of `engines: auto`; without it as it is.

    Raises:
        InputError: too little is known to choose.
    """
    if spec.engines is None:
        return spec
    model = known(spec.model.uri)
    if model is None:
        raise InputError(
            f"spec.engines is 'auto', and spec.model.uri is {spec.model.uri!r}, whose sizes are not known by its name; "
            "remove spec.engines, and write engine.kind of challenger, rollout and evaluation"
        )
    for part in _candidates(spec):
        memory = pods_of(spec, PARTS[part]).gpu_memory
        if memory is None:
            raise InputError(
                f"spec.engines is 'auto', and neither spec.pods.gpuMemory nor spec.{part}.pods.gpuMemory is given; say "
                "how much memory a GPU has, for example 80Gi"
            )
        room = gib(memory)
        engine = BESIDE if part == "challenger" else _alone(spec, part, model, room)
        written = getattr(spec, part)
        changed = written.model_copy(update={"engine": engine.in_place_of(written.engine)})
        candidate = spec.model_copy(update={part: changed})
        if _fits(candidate, part, model, room):
            spec = candidate
    return spec


def asked_of(engine: Engine) -> Engine:
    """The engine that the spec has, where ``engine`` is chosen in place of it."""
    return engine.asked if isinstance(engine, Chosen) else engine


def engines_of(spec: RunSpec) -> ChosenEngines | None:
    """What to record of such a spec; None where a person chooses."""
    if spec.engines is None:
        return None
    return ChosenEngines.model_validate(dict(_kinds(spec)))


def engine_lines(spec: RunSpec) -> list[str]:
    """The engines of such a spec in a line; nothing where a person chooses."""
    return [] if spec.engines is None else [f"engines: {', '.join(f'{part} {kind}' for part, kind in _kinds(spec))}"]


def _kinds(spec: RunSpec) -> Iterator[tuple[str, str]]:
    for part in PARTS:
        if getattr(spec, part) is not None:
            yield part, getattr(spec, part).engine.kind


def _candidates(spec: RunSpec) -> list[str]:
    """Parts that vLLM could answer in: their pods have GPUs, and nobody chose another engine."""
    samplings = [
        spec.challenger.question_sampling,
        spec.rollout.answer_sampling,
        spec.challenger.grpo,
        spec.solver.grpo,
    ]
    if spec.evaluation is not None:
        samplings.append(spec.evaluation.sampling)
    hot = any(sampling is not None and sampling.temperature > HOTTEST for sampling in samplings)
    if hot or spec.model.dtype == "float32":
        return []
    verifier = _trained(spec)
    unknown = verifier is not None and verifier.model is not None and known(verifier.model.uri) is None
    return [
        part
        for part, kind in _kinds(spec)
        if kind == "transformers"
        and named_gpus(spec, getattr(spec, part).pods)
        and not (part == "challenger" and spec.challenger.grpo.colocated)  # a process has one vLLM
        and not (unknown and part != "evaluation")  # a judge that takes nobody knows how much is read there
    ]


def _trained(spec: RunSpec) -> Verifier | None:
    """The Verifier whose judge is on the GPUs of the Challenger's training and the rollout; None without one."""
    return spec.verifier if spec.verifier is not None and spec.verifier.is_beside else None


def _alone(spec: RunSpec, part: str, model: Architecture, room: float) -> Chosen:
    """The engine of a part that trains nothing. vLLM takes its share first; what a judge takes then has to be left."""
    verifier = _trained(spec)
    if verifier is None or part == "evaluation":
        return ALONE
    read = judge_reading(judge_model(verifier, model), verifier, _longest(spec)) * (1 + RESERVE) / GIB + CONTEXT_GIB
    share = floor(100 * (ALONE.gpu_memory_utilization - read / room)) / 100
    return ALONE.model_copy(update={"gpu_memory_utilization": share})


def _longest(spec: RunSpec) -> int:
    return max(spec.challenger.grpo.max_completion_length, spec.solver.grpo.max_completion_length)


def _fits(spec: RunSpec, part: str, model: Architecture, room: float) -> bool:
    """Whether the engine of ``part`` has room for the model and some sequences, and what is trained beside it, too."""
    engine = getattr(spec, part).engine
    cached = SEQUENCES * (PROMPT_TOKENS + _longest(spec)) * model.cached(2)
    gpus = named_gpus(spec, getattr(spec, part).pods)
    over = gpus if part != "challenger" and model.heads % gpus == 0 else 1  # where several train, each has its own
    share = engine.gpu_memory_utilization * room
    if (2 * model.parameters + cached) * (1 + RESERVE) / over / GIB > share:
        return False
    if part != "challenger":
        return True
    need = next(need for need in needs(spec, model) if need.phase == CHALLENGER_TRAIN.name)
    return need.total <= room and need.held * (1 + RESERVE) / GIB + CONTEXT_GIB + share <= room
