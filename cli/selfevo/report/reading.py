"""What the store has of one step, checked against its digests."""

from __future__ import annotations

import json
from typing import Any

from selfevo_contract.artifacts import (
    MANIFEST_NAME,
    Manifest,
    checkpoint_prefix,
    failed_prefix,
    shard_prefix,
    step_prefix,
)
from selfevo_contract.errors import InputError
from selfevo_contract.plan import Step
from selfevo_store import ObjectStore, read_file, read_own_manifest
from selfevo_store.base import in_parallel

Row = dict[str, Any]


def prefix_of(namespace: str, step: Step) -> str:
    """Where the step's output lies."""
    return step_prefix(namespace, step.phase, step.key)


def own_manifest(store: ObjectStore, prefix: str, step: Step) -> Manifest | None:
    """The manifest at ``prefix``.

    Raises:
        InputError: it is another step's.
    """
    return read_own_manifest(store, prefix, step.phase, step.key, step.name)


def read_rows(store: ObjectStore, prefix: str, manifest: Manifest, name: str) -> list[Row]:
    """The rows of a JSON-lines file; none when the manifest has no such file.

    Raises:
        CorruptArtifact: the stored file is missing or not what the manifest says.
        InputError: it is not JSON lines.
    """
    if manifest.file(name) is None:
        return []
    lines = read_file(store, prefix, manifest, name).splitlines()
    try:
        rows = [json.loads(line) for line in lines if line.strip()]
    except (ValueError, RecursionError):
        rows = [None]
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"{store.uri_of(prefix)}: file {name!r} is not JSON lines, though its digest is right; remove "
            f"{MANIFEST_NAME} there to have it made again"
        )
    return rows


def read_failed(store: ObjectStore, prefix: str, step: Step) -> list[Row]:
    """The completions that a step without an output failed by; none when it left none."""
    place = failed_prefix(prefix)
    manifest = own_manifest(store, place, step)
    return [] if manifest is None else read_rows(store, place, manifest, "questions.jsonl")


def read_shards(store: ObjectStore, prefix: str, step: Step) -> list[Manifest]:
    """The manifests of the shards that are there."""
    places = [shard_prefix(prefix, index) for index in range(step.shards)]
    found = in_parallel(lambda place: own_manifest(store, place, step), places)
    return [manifest for manifest in found if manifest is not None]


def progress_of(store: ObjectStore, prefix: str, step: Step, shards: int) -> str:
    """How far a step is that has no manifest; empty when it has not begun, as far as the store knows."""
    if step.type.sharded:
        return f"{shards} of {step.shards} shards" if shards else ""
    grpo = getattr(step.inputs, "grpo", None)
    if grpo is None:
        return ""
    there = {info.key for info in store.list(f"{prefix}/checkpoints")}
    done = max(
        (i for i in range(1, grpo.max_steps + 1) if f"{checkpoint_prefix(prefix, i)}/{MANIFEST_NAME}" in there),
        default=0,
    )
    return f"checkpoint after step {done} of {grpo.max_steps}" if done else ""
