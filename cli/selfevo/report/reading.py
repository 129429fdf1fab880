"""What the store has of one step, checked against its digests."""

from __future__ import annotations

from selfevo_contract.artifacts import (
    ANSWER_CHUNKS,
    MANIFEST_NAME,
    Manifest,
    checkpoint_prefix,
    chunk_places,
    chunks_prefix,
    committed_chunks,
    failed_prefix,
    step_prefix,
)
from selfevo_contract.phases import SolverRolloutInputs
from selfevo_contract.plan import Step
from selfevo_contract.rows import QUESTIONS, InvalidCompletion, R, RowFile
from selfevo_store import ObjectStore, fetch_rows, read_own_manifest
from selfevo_store.base import in_parallel


def prefix_of(namespace: str, step: Step) -> str:
    """Where the step's output lies."""
    return step_prefix(namespace, step.phase, step.key)


def own_manifest(store: ObjectStore, prefix: str, step: Step) -> Manifest | None:
    """The manifest at ``prefix``.

    Raises:
        InputError: it is another step's.
    """
    return read_own_manifest(store, prefix, step.phase, step.key, step.name)


def read_rows(store: ObjectStore, prefix: str, manifest: Manifest, file: RowFile[R]) -> list[R]:
    """The rows of ``file``; none when the manifest has no such file.

    Raises:
        CorruptArtifact: the stored file is missing or not what the manifest says.
        InputError: a row is damaged.
    """
    return fetch_rows(store, prefix, manifest, file) if file.as_in(manifest) else []


def read_failed(store: ObjectStore, prefix: str, step: Step) -> list[InvalidCompletion]:
    """The completions that a step without an output failed by; none when it left none."""
    place = failed_prefix(prefix)
    manifest = own_manifest(store, place, step)
    rows = [] if manifest is None else read_rows(store, place, manifest, QUESTIONS)
    return [row for row in rows if isinstance(row, InvalidCompletion)]


def read_chunks(store: ObjectStore, prefix: str, step: Step) -> list[Manifest]:
    """The manifests of a step's chunks that are there, of each kind."""
    places = chunk_places(prefix, (info.key for info in store.list(chunks_prefix(prefix))))
    found = in_parallel(lambda place: own_manifest(store, place, step), places)
    return [manifest for manifest in found if manifest is not None]


def progress_of(store: ObjectStore, prefix: str, step: Step) -> str:
    """How far a step is that has no manifest; empty when it has not begun, as far as the store knows."""
    if step.type.sharded:
        keys = (info.key for info in store.list(chunks_prefix(prefix, ANSWER_CHUNKS)))
        answered = {number for numbers in committed_chunks(prefix, ANSWER_CHUNKS, keys) for number in numbers}
        of = f" of {step.inputs.questions}" if isinstance(step.inputs, SolverRolloutInputs) else ""  # else data says it
        return f"{len(answered)}{of} questions answered" if answered else ""
    grpo = getattr(step.inputs, "grpo", None)
    if grpo is None:
        return ""
    there = {info.key for info in store.list(f"{prefix}/checkpoints")}
    updates = range(1, grpo.updates + 1)
    update = max((i for i in updates if f"{checkpoint_prefix(prefix, i)}/{MANIFEST_NAME}" in there), default=0)
    done, within = divmod(update, grpo.updates_per_step)
    if within:
        return f"checkpoint in step {done + 1} of {grpo.max_steps}, after update {within} of {grpo.updates_per_step}"
    return f"checkpoint after step {done} of {grpo.max_steps}" if done else ""
