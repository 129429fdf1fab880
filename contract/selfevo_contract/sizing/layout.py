"""`layout: auto`: how both roles are trained on the GPUs that their pods name, by the formula of docs/sizing.md. Pure.

It is chosen once and then stands in the run's status, so that neither other pods nor another version of the formula
move the keys of a run that has begun. What a person wrote stays; the manifest, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selfevo_contract.errors import InputError
from selfevo_contract.phases import CHALLENGER_TRAIN, PHASES, SOLVER_TRAIN
from selfevo_contract.pods import pods_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import Architecture, known
from selfevo_contract.sizing.engines import asked_of, engine_lines, with_engines
from selfevo_contract.sizing.fit import gib, in_cpu_of_pod
from selfevo_contract.sizing.memory import GIB, Need, gpus_of, needs
from selfevo_contract.spec.engines import TransformersEngine
from selfevo_contract.spec.lora import Lora
from selfevo_contract.spec.run import ROLES, RunSpec
from selfevo_contract.status import Layout, RoleLayout

_PHASES = {"challenger": CHALLENGER_TRAIN.name, "solver": SOLVER_TRAIN.name}
_LORA = Lora(rank=32, alpha=32.0, dropout=0.0)
_CHECKPOINTING: Mapping[str, Any] = {"gradient_checkpointing": True}
_CHANGES: tuple[Mapping[str, Any], ...] = (
    {},
    _CHECKPOINTING,
    {**_CHECKPOINTING, "sharding": "fsdp"},
    {**_CHECKPOINTING, "lora": _LORA},
    {**_CHECKPOINTING, "sharding": "fsdp", "lora": _LORA},
    {**_CHECKPOINTING, "sharding": "fsdp", "cpu_offload": True},
    {**_CHECKPOINTING, "sharding": "fsdp", "cpu_offload": True, "lora": _LORA},
)
"""What is tried in turn. All weights come before an adapter, which learns something else, and both before shares in CPU
memory, for whose copies each pass waits."""


def laid_out(run: SelfEvolutionRun) -> SelfEvolutionRun:
    """``run`` with what its status says of its layout, or else what is chosen now, in its spec, and engines.

    Without `layout: auto` and `engines: auto` it is as it was.

    Raises:
        InputError: too little is known to choose.
    """
    spec = run.spec
    if spec.layout is not None:
        recorded = run.status.layout if run.status is not None else None
        spec = _chosen(spec) if recorded is None else _applied(spec, recorded)
    spec = with_engines(spec)
    return run if spec is run.spec else run.model_copy(update={"spec": spec})


def layout_of(spec: RunSpec) -> Layout | None:
    """What to record of a spec that is laid out; None where a person does it."""
    if spec.layout is None:
        return None
    return Layout.model_validate({role: _role_layout(spec, role) for role in ROLES})


def layout_lines(spec: RunSpec) -> list[str]:
    """The layout of a spec that is laid out, a line for each role, and its engines; nothing where a person wrote it."""
    lines = []
    for role in ROLES if spec.layout else ():
        chosen = _role_layout(spec, role)
        words = [
            f"an adapter (lora, rank {getattr(spec, role).grpo.lora.rank})" if chosen.lora else "all weights",
            f"shared out over {gpus_of(spec, getattr(spec, role).pods)} GPUs" if chosen.sharding == "fsdp" else "",
            "cpuOffload" if chosen.cpu_offload else "",
            "gradientCheckpointing" if chosen.gradient_checkpointing else "",
            f"engine.batchSize {chosen.engine_batch_size}" if _answers_in_batches(spec, role) else "",
        ]
        lines.append(f"layout of {role}: {', '.join(word for word in words if word)}")
    return lines + engine_lines(spec)


def _answers_in_batches(spec: RunSpec, role: str) -> bool:
    return role == "challenger" and isinstance(spec.challenger.engine, TransformersEngine)


def _role_layout(spec: RunSpec, role: str) -> RoleLayout:
    part = getattr(spec, role)
    # Of vLLM that is chosen, too: the batches count again where it is not chosen any more.
    engine = asked_of(part.engine) if role == "challenger" else None
    return RoleLayout(
        lora=part.grpo.lora is not None,
        sharding="fsdp" if part.grpo.sharded else "none",
        cpu_offload=part.grpo.offloaded,
        gradient_checkpointing=part.grpo.gradient_checkpointing,
        engine_batch_size=engine.batch_size if isinstance(engine, TransformersEngine) else None,
    )


def _applied(spec: RunSpec, layout: Layout) -> RunSpec:
    for role in ROLES:
        chosen: RoleLayout = getattr(layout, role)
        changes: dict[str, Any] = {"gradient_checkpointing": chosen.gradient_checkpointing}
        if chosen.sharding == "fsdp":
            changes["sharding"] = "fsdp"
        if chosen.cpu_offload:
            changes["cpu_offload"] = True
        if chosen.lora:
            changes["lora"] = _LORA
        spec = _with(spec, role, changes, chosen.engine_batch_size)
    return spec


def _chosen(spec: RunSpec) -> RunSpec:
    if spec.fork_from is not None:
        raise InputError(
            "spec.layout is 'auto', and spec.forkFrom goes on from models of another run; remove spec.layout, and "
            "write grpo.lora as that run's manifest or status.layout has it"
        )
    model = known(spec.model.uri)
    if model is None:
        raise InputError(
            f"spec.layout is 'auto', and spec.model.uri is {spec.model.uri!r}, whose sizes are not known by its name; "
            "remove spec.layout and write grpo.lora and grpo.sharding (`selfevo size --config` says what fits)"
        )
    for role in ROLES:
        memory = pods_of(spec, _PHASES[role]).gpu_memory
        if memory is None:
            raise InputError(
                f"spec.layout is 'auto', and neither spec.pods.gpuMemory nor spec.{role}.pods.gpuMemory is given; say "
                "how much memory a GPU has, for example 80Gi"
            )
        spec = _for_role(spec, role, model, gib(memory))
    return spec


def _for_role(spec: RunSpec, role: str, model: Architecture, room: float) -> RunSpec:
    """The first that fits with its reserve; the smallest where none does, which `fit` may then refuse."""
    tried = ((candidate, _need(candidate, role, model)) for candidate in _tried(spec, role))
    found = [(candidate, need) for candidate, need in tried if _has_cpu_memory(candidate, need, spec)]
    fits = (candidate for candidate, need in found if need.total <= room)
    return next(fits, min(found, key=lambda pair: pair[1].total)[0])


def _has_cpu_memory(candidate: RunSpec, need: Need, written: RunSpec) -> bool:
    """Whether there is CPU memory for what the phase keeps there, as far as pods are written to have it. What a person
    wrote to be there is."""
    limit = pods_of(candidate, need.phase).resources.limits.get("memory")
    part = PHASES[need.phase].part
    if not need.in_cpu or getattr(written, part).grpo.offloaded:
        return True
    return limit is not None and in_cpu_of_pod(candidate, need) <= gib(limit) * GIB


def may_shard(spec: RunSpec, role: str) -> bool:
    """Whether the processes that train ``role`` can share its weights out among them."""
    part = getattr(spec, role)
    return gpus_of(spec, part.pods) > 1 and not part.grpo.colocated and spec.model.dtype != "float16"


def _tried(spec: RunSpec, role: str) -> Iterator[RunSpec]:
    for changes in _CHANGES:
        if "sharding" in changes and not may_shard(spec, role):
            continue
        candidate = _with(spec, role, changes)
        yield candidate
        engine = spec.challenger.engine
        while role == "challenger" and isinstance(engine, TransformersEngine) and engine.batch_size > 8:
            engine = engine.model_copy(update={"batch_size": engine.batch_size // 2})
            yield _with(spec, role, changes, engine.batch_size)


def _with(spec: RunSpec, role: str, changes: Mapping[str, Any], batch_size: int | None = None) -> RunSpec:
    """``spec`` with ``changes`` of a role's training, but for what a person wrote, and the batches of its engine."""
    part = getattr(spec, role)
    written = {name for name in ("lora", "sharding", "cpu_offload") if getattr(part.grpo, name) is not None}
    grpo = part.grpo.model_copy(update={name: value for name, value in changes.items() if name not in written})
    if not grpo.sharded:  # what lies in CPU memory is shares
        grpo = grpo.model_copy(update={"cpu_offload": part.grpo.cpu_offload})
    updated: dict[str, Any] = {"grpo": grpo}
    if batch_size is not None and isinstance(part.engine, TransformersEngine):
        updated["engine"] = part.engine.model_copy(update={"batch_size": min(batch_size, part.engine.batch_size)})
    return spec.model_copy(update={role: part.model_copy(update=updated)})


def _need(spec: RunSpec, role: str, model: Architecture) -> Need:
    return next(need for need in needs(spec, model) if need.phase == _PHASES[role])
