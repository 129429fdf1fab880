"""What makes a run smaller, in the order in which docs/sizing.md tries it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from selfevo_contract.sizing.architecture import Architecture
from selfevo_contract.sizing.memory import CARDS, Need, needs
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.lora import Lora
from selfevo_contract.spec.run import RunSpec

CHANGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("gradientCheckpointing: true", {"gradient_checkpointing": True}),
    ("perDeviceTrainBatchSize: 1", {"per_device_train_batch_size": 1}),
    ("generationBatchTokens: 32768", {"generation_batch_tokens": 32_768}),
    ("sharding: fsdp", {"sharding": "fsdp"}),
    ("cpuOffload: true", {"cpu_offload": True}),
    ("lora: {}", {"lora": Lora()}),
)
"""As a person writes them below challenger.grpo and solver.grpo (the second also below finetune), and the fields that
they set."""


def trained(spec: RunSpec, model: Architecture) -> list[Need]:
    """What the phases that train take."""
    return [need for need in needs(spec, model) if need.backward]


def suggestions(spec: RunSpec, model: Architecture, card: str) -> Iterator[tuple[str, list[Need]]]:
    """Changes of both roles' training, each on top of the one before, and what training takes then. They end with the
    first that fits on ``card``; with none when training fits as it is."""
    for written, fields in CHANGES:
        if all(need.total <= CARDS[card] for need in trained(spec, model)):
            return
        if fields.keys() & {"sharding", "cpu_offload"} and not _can_shard(spec, model):
            continue
        changed = with_settings(spec, **fields)
        if changed != spec:
            spec = changed
            yield written, trained(spec, model)


def _can_shard(spec: RunSpec, model: Architecture) -> bool:
    several = all(need.gpus > 1 for need in trained(spec, model))
    return several and not (spec.challenger.grpo.colocated or spec.solver.grpo.colocated)


def with_settings(spec: RunSpec, **grpo: Any) -> RunSpec:
    """``spec`` with other settings of both roles' training."""

    def changed(part: Grpo) -> Grpo:
        return part.model_copy(update=grpo)

    size, finetune = grpo.get("per_device_train_batch_size"), spec.finetune
    if finetune is not None and size is not None:  # the rest it has from the Solver
        finetune = finetune.model_copy(update={"per_device_train_batch_size": size})

    return spec.model_copy(
        update={
            "challenger": spec.challenger.model_copy(update={"grpo": changed(spec.challenger.grpo)}),
            "solver": spec.solver.model_copy(update={"grpo": changed(spec.solver.grpo)}),
            "finetune": finetune,
        }
    )
