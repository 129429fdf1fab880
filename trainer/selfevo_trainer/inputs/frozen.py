"""A phase's frozen models, opened in the engine that the run asks for. Every phase opens them here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from selfevo_contract.phases import Loading, ModelRef, StepModelRef
from selfevo_contract.spec.sampling import Sampling
from selfevo_trainer.context import Context
from selfevo_trainer.engines import WITH_ADAPTERS, Engine, Frozen, open_engine
from selfevo_trainer.inputs.model_files import fetch_model
from selfevo_trainer.models import adapters


class _Inputs(Protocol):
    @property
    def loading(self) -> Loading: ...


def name_of(ref: ModelRef) -> str:
    """What servers and messages call the model: ``<phase>/<key>`` of its step, or the address of the base."""
    return f"{ref.phase}/{ref.key}" if isinstance(ref, StepModelRef) else ref.uri


def open_frozen(
    context: Context, inputs: _Inputs, role: str, samplings: Sequence[Sampling], prompt_length: int | None = None
) -> Engine:
    """The engine with the model that the field ``role`` of ``inputs`` names; its time is counted as generation.

    Args:
        samplings: every sampling that the phase will ask it for.
        prompt_length: most tokens of a prompt; None: nothing bounds it.

    Raises:
        InputError: there is no such model, or the engine cannot serve it.
        ServiceError: store, hub or server cannot be reached.
    """
    ref: ModelRef = getattr(inputs, role)
    path = files_of(context, ref, role)
    completion = max(sampling.max_completion_length for sampling in samplings)
    weights = Frozen(
        path=path,
        loading=inputs.loading,
        name=name_of(ref),
        role=role,
        longest=0 if prompt_length is None else prompt_length + completion,
    )
    with context.clock.during("load"):
        return context.timed_engine(open_engine(context.config.engine, weights))


def files_of(context: Context, ref: ModelRef, role: str) -> Path:
    """The folder that the engine of the phase takes: an adapter, or one merged with its base."""
    path = fetch_model(context, ref, role)
    if adapters.is_adapter(path) and context.config.engine.kind not in WITH_ADAPTERS:
        return _merged(context, path, role)
    return path


def _merged(context: Context, path: Path, role: str) -> Path:
    def merge(dest: Path) -> Path:
        adapters.merge(adapters.base_of(path), path, dest)
        return dest

    with context.clock.during("load"):
        return context.once_per_pod(f"{role}-merged", merge)
