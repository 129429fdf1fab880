"""What makes a run fit on a GPU, in the order in which docs/sizing.md tries it. Pure.

Each phase that does not fit is changed by itself. Settings come one after another, each only where it takes something
off, until the phase fits; those that are not needed then, or not so far, are given up again, the last ones first. So
the first of them are those that cost least, and what is written stays where it takes less already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfevo_contract.phases import CHALLENGER_TRAIN, EVALUATE, FINETUNE, SOLVER_ROLLOUT, SOLVER_TRAIN, VERIFIER_TRAIN
from selfevo_contract.pods import pods_of
from selfevo_contract.sizing.architecture import Architecture
from selfevo_contract.sizing.fit import gib, in_cpu_of_pod
from selfevo_contract.sizing.layout import may_shard
from selfevo_contract.sizing.memory import CARDS, GIB, Need, needs
from selfevo_contract.spec.engines import TransformersEngine
from selfevo_contract.spec.lora import Lora
from selfevo_contract.spec.run import RunSpec

_TRAINED = {
    CHALLENGER_TRAIN.name: ("challenger", "grpo"),
    SOLVER_TRAIN.name: ("solver", "grpo"),
    FINETUNE.name: ("solver", "grpo"),  # its own settings are few; the rest it has from the Solver
    VERIFIER_TRAIN.name: ("verifier",),
}
_ANSWERED = {
    CHALLENGER_TRAIN.name: ("challenger", "engine"),
    SOLVER_ROLLOUT.name: ("rollout", "engine"),
    VERIFIER_TRAIN.name: ("verifier", "engine"),
    EVALUATE.name: ("evaluation", "engine"),
}
"""Where a phase's settings lie below spec, and those of its engine."""
TOKENS_SHARE, BATCH_SHARE = 4, 8
"""Parts of the written `generationBatchTokens` and of an engine's `batchSize` that are tried first; less of them, which
is slow, comes after all else."""


@dataclass(frozen=True)
class Suggestion:
    """One setting, on top of those before."""

    written: str
    """As a person writes it, `gradientCheckpointing: true`."""
    places: tuple[str, ...]
    """Below which fields of spec, `challenger.grpo`."""
    needs: list[Need]
    """What each phase takes then."""


@dataclass(frozen=True)
class _Field:
    place: tuple[str, ...]
    name: str
    written: str
    """Its name as a person writes it."""

    def of(self, spec: RunSpec) -> Any:
        """Its value, or None where that part of ``spec`` has no such field."""
        return getattr(_at(spec, self.place), self.name, None)


_Changed = Mapping[_Field, Any]
_ORDER = (
    ("gradient_checkpointing", "gradientCheckpointing"),
    ("per_device_train_batch_size", "perDeviceTrainBatchSize"),
    ("generation_batch_tokens", "generationBatchTokens"),
    ("batch_size", "batchSize"),
    ("sharding", "sharding"),
    ("cpu_offload", "cpuOffload"),
    ("lora", "lora"),
)


def suggestions(spec: RunSpec, model: Architecture, card: str) -> Iterator[Suggestion]:
    """Each on top of the one before, in the order of docs/sizing.md. With all of them every phase fits on ``card`` that
    they make fit; there are none when all fit as they are."""
    changed: dict[_Field, Any] = {}
    for phase in [need.phase for need in needs(spec, model)]:
        changed |= _Phase(_with(spec, changed), phase, model, CARDS[card]).changes()
    for name, written in _ORDER:
        values = {_text(value): value for field, value in changed.items() if field.name == name}
        for text in values:
            these = {field: it for field, it in changed.items() if field.name == name and _text(it) == text}
            spec = _with(spec, these)
            places = tuple(dict.fromkeys(".".join(field.place) for field in these))
            yield Suggestion(f"{written}: {text}", places, list(needs(spec, model)))


@dataclass(frozen=True)
class _Phase:
    """A phase of ``spec`` that is to fit into ``room`` GiB."""

    spec: RunSpec
    phase: str
    model: Architecture
    room: float

    def changes(self) -> dict[_Field, Any]:
        """What makes it fit; where nothing does, all that takes something off."""
        taken: dict[_Field, Any] = {}
        for field, values in self._tried():
            if self._fits(taken):
                break
            for value in values:
                if not self._takes_less(more := {**taken, field: value}, taken):
                    continue
                taken.pop(field, None)  # in its new place, where it was taken before
                taken[field] = value
                if self._fits(more):
                    break
        if not self._fits(taken):
            return taken
        for field in reversed(list(taken)):
            without = {name: value for name, value in taken.items() if name != field}
            values = [values for name, values in self._tried() if name == field][-1]
            trials = (without, *({**taken, field: value} for value in values))
            taken = next(trial for trial in trials if self._fits(trial))
        return taken

    def _tried(self) -> list[tuple[_Field, Sequence[Any]]]:
        """Fields and their values in turn. All weights with less at once come before an adapter, which learns something
        else, and very little at once, which is slow, is the last."""
        trained, answered = _TRAINED.get(self.phase), _ANSWERED.get(self.phase)
        tokens, sizes = self._halves(trained, "generation_batch_tokens"), self._halves(answered, "batch_size")
        roles = (CHALLENGER_TRAIN.name, SOLVER_TRAIN.name)
        shards = trained is not None and self.phase in roles and may_shard(self.spec, trained[0])
        tried: list[tuple[tuple[str, ...] | None, str, Sequence[Any]]] = [
            (trained, "gradient_checkpointing", [True]),
            (("finetune",) if self.phase == FINETUNE.name else trained, "per_device_train_batch_size", [1]),
            (trained, "generation_batch_tokens", [it for it in tokens if it * TOKENS_SHARE >= tokens[0] * 2]),
            (answered, "batch_size", [it for it in sizes if it * BATCH_SHARE >= sizes[0] * 2]),
            (trained, "sharding", ["fsdp"] if shards else []),
            (trained, "cpu_offload", [True] if shards else []),
            (trained, "lora", [Lora()] if trained and _at(self.spec, trained).lora is None else []),
            (trained, "generation_batch_tokens", tokens),
            (answered, "batch_size", sizes),
        ]
        names = dict(_ORDER)
        return [
            (_Field(place, name, names[name]), values)
            for place, name, values in tried
            if place is not None and hasattr(_at(self.spec, place), name)
        ]

    def _halves(self, place: tuple[str, ...] | None, name: str) -> list[int]:
        """Half of what is written at ``place``, half of that, down to 1."""
        part = None if place is None else _at(self.spec, place)
        if part is None or (name == "batch_size" and not isinstance(part, TransformersEngine)):
            return []
        number = getattr(part, name, 1)
        return [number >> times for times in range(1, number.bit_length())]

    def _need(self, changed: _Changed) -> Need:
        return next(it for it in needs(_with(self.spec, changed), self.model) if it.phase == self.phase)

    def _fits(self, changed: _Changed) -> bool:
        return self._need(changed).total <= self.room

    def _takes_less(self, changed: _Changed, before: _Changed) -> bool:
        """Less of something and in all not more; and a limit of the pods' CPU memory holds what is kept there."""
        now, then = self._need(changed), self._need(before)
        parts = [(it.held, it.backward, it.policy, it.batch) for it in (now, then)]
        limit = pods_of(self.spec, self.phase).resources.limits.get("memory")
        if limit is not None and in_cpu_of_pod(self.spec, now) > gib(limit) * GIB:
            return False
        return now.total <= then.total and any(one < other for one, other in zip(*parts, strict=True))


def _text(value: Any) -> str:
    """As YAML has it."""
    return "true" if value is True else "{}" if isinstance(value, Lora) else str(value)


def _at(spec: RunSpec, place: tuple[str, ...]) -> Any:
    found: Any = spec
    for name in place:
        found = getattr(found, name)
    return found


def _with(spec: RunSpec, changed: _Changed) -> RunSpec:
    for field, value in changed.items():
        spec = _updated(spec, field.place, {field.name: value})
    return spec


def _updated(spec: RunSpec, place: tuple[str, ...], fields: Mapping[str, Any]) -> RunSpec:
    """``spec`` with other ``fields`` of its part at ``place``."""
    for depth in reversed(range(len(place))):
        fields = {place[depth]: _at(spec, place[: depth + 1]).model_copy(update=fields)}
    return spec.model_copy(update=fields)


def with_settings(spec: RunSpec, **grpo: Any) -> RunSpec:
    """``spec`` with other settings of both roles' training."""
    for phase in (CHALLENGER_TRAIN.name, SOLVER_TRAIN.name):
        spec = _updated(spec, _TRAINED[phase], grpo)
    size = grpo.get("per_device_train_batch_size")
    if spec.finetune is None or size is None:  # the rest it has from the Solver
        return spec
    return _updated(spec, ("finetune",), {"per_device_train_batch_size": size})
