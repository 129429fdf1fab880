"""A judge's files. A verifier-train step that was not promoted has none, and says whose judge stays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from selfevo_contract.artifacts import Manifest
from selfevo_contract.errors import InputError
from selfevo_contract.judging import JUDGE_FILE, Verdict, digest_of
from selfevo_contract.phases import Loading, StepModelRef
from selfevo_store import CorruptArtifact, fetch, read_file
from selfevo_trainer.context import Context
from selfevo_trainer.engines.vllm_command import ServedModel


@dataclass(frozen=True)
class JudgeFiles:
    """A judge on this disk."""

    path: Path
    """A folder with config.json, tokenizer and safetensors, the score head among them."""
    digest: str
    holder: StepModelRef
    """The step that made it."""


def served_judge(files: JudgeFiles, loading: Loading, max_length: int) -> ServedModel:
    """``files`` as a server is given them. Their digest is in the name: scores belong to it."""
    name = f"judge/{files.digest}"
    return ServedModel(name=name, path=files.path, loading=loading, longest=max_length, scores=True)


def verdict_of(context: Context, ref: StepModelRef, use: str) -> tuple[str, Manifest, Verdict]:
    """Where the verifier-train step ``ref`` has its output, its manifest, and which judge it stands for.

    Raises:
        InputError: it is not there, or says nothing of a judge.
    """
    prefix, manifest = context.output_of(ref.phase, ref.key, use)
    if manifest.file(JUDGE_FILE) is None:
        raise InputError(f"{context.store.uri_of(prefix)} holds no {JUDGE_FILE}, so no judge is known by it")
    try:
        return prefix, manifest, Verdict.model_validate_json(read_file(context.store, prefix, manifest, JUDGE_FILE))
    except ValidationError:
        raise InputError(f"{context.store.uri_of(prefix)}: {JUDGE_FILE} names no judge") from None


def fetch_judge(context: Context, ref: StepModelRef, name: str = "judge") -> JudgeFiles:
    """The judge that ``ref`` stands for, on this disk, with the digest that its scores belong to.

    Args:
        name: folder of the working directory to put it in.

    Raises:
        InputError: it is not there.
        CorruptArtifact: what lies there is not the judge that the step named.
        ServiceError: the store cannot be reached.
    """
    with context.clock.during("store"):
        _, _, verdict = verdict_of(context, ref, "asks that judge")
        holder = verdict.holder
        prefix, manifest = context.output_of(holder.phase, holder.key, "asks that judge")
        if digest_of(manifest) != verdict.digest:
            raise CorruptArtifact(f"{context.store.uri_of(prefix)}: has another judge than {ref.key[:12]} names")
        path = context.once_per_pod(name, lambda dest: fetch(context.store, prefix, manifest, dest, folder="model"))
    return JudgeFiles(path, verdict.digest, holder)
