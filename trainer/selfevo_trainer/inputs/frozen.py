"""A phase's frozen models, opened in the engine that the run asks for. Every phase opens them here."""

from __future__ import annotations

from collections.abc import Sequence

from selfevo_contract.phases import BuiltInputs, GrpoInputs, ModelRef, StepModelRef
from selfevo_contract.spec.sampling import Sampling
from selfevo_trainer.context import Context
from selfevo_trainer.engines import Engine, Frozen, open_engine
from selfevo_trainer.inputs import fingerprints
from selfevo_trainer.inputs.model_files import fetch_model


def name_of(ref: ModelRef) -> str:
    """What servers and messages call the model: ``<phase>/<key>`` of its step, or the address of the base."""
    return f"{ref.phase}/{ref.key}" if isinstance(ref, StepModelRef) else ref.uri


def open_frozen(
    context: Context, inputs: BuiltInputs, role: str, samplings: Sequence[Sampling], prompt_length: int | None = None
) -> Engine:
    """The engine with the model that the field ``role`` of ``inputs`` names; its time is counted as generation.

    It has been held against the model's fingerprint (fingerprints.py).

    Args:
        samplings: every sampling that the phase will ask it for.
        prompt_length: most tokens of a prompt; None: nothing bounds it.

    Raises:
        InputError: there is no such model, the engine cannot serve it, or serves another one.
        ServiceError: store, hub or server cannot be reached.
    """
    ref: ModelRef = getattr(inputs, role)
    path = fetch_model(context, ref, role)
    completion = max(sampling.max_completion_length for sampling in samplings)
    fingerprint = fingerprints.fingerprint_of(context, inputs, role, path)
    # A server wants room for a token behind those that it scores.
    probe = 0 if fingerprint is None else fingerprint.longest + 1
    weights = Frozen(
        path=path,
        loading=inputs.loading,
        name=name_of(ref),
        role=role,
        longest=0 if prompt_length is None else max(prompt_length + completion, probe),
        beside_training=isinstance(inputs, GrpoInputs),
    )
    with context.clock.during("load"):
        engine = open_engine(context.config.engine, weights)
        if fingerprint is not None:
            try:
                fingerprints.check(context, engine, weights, fingerprint)
            except BaseException:
                engine.close()
                raise
    return context.timed_engine(engine)
