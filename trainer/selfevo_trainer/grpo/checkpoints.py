"""Intra-phase checkpoints: a trainer's state, committed to the store, checked before it is opened.

TRL's own checkpoint folder is what is committed (of a sharded training each process's share of it, `shards`), less
``training_args.bin``, which nothing reads back and which only a pickle can hold. The optimizer's state is torch's
format; its digest is checked before it is opened, with ``weights_only=True`` (docs/decisions/0002-optimizer-state.md).

A checkpoint's number is that of the optimizer updates done. The completions of the step under way are a commit of their
own below it, once when they are scored, and before as parts of them are, or are generated: between steps it can do
without them, within a step it cannot do without the former.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfevo_contract import reasons
from selfevo_contract.artifacts import (
    COMPLETIONS,
    GENERATED,
    GENERATING,
    MANIFEST_NAME,
    Manifest,
    ManifestDraft,
    StoredFile,
    checkpoint_prefix,
    in_parts,
)
from selfevo_contract.errors import SelfevoError, ServiceError
from selfevo_store import CorruptArtifact, commit, commit_parts, fetch, read_manifest, remove_parts, upload_part
from selfevo_trainer.context import Context

_LEFT_OUT = {"training_args.bin", "README.md"}
_KEPT = 2

log = logging.getLogger("selfevo")


@dataclass(frozen=True)
class Found:
    """A checkpoint on this disk."""

    update: int
    """Optimizer updates done."""
    state: Path
    completions: Path | None
    """Of the step under way; None when they are to be generated."""
    place: str | None
    """Theirs, below the checkpoint."""


@dataclass(frozen=True)
class Shared:
    """A checkpoint that all processes write together."""

    write_id: str
    group: Any
    """Of all processes, for the threads that upload."""


def _updates(context: Context) -> list[int]:
    """Numbers of the committed checkpoints, newest first."""
    return _numbered(context, f"{context.config.prefix}/checkpoints")


def kept_files(folder: Path) -> dict[str, Path]:
    """What is stored of a folder that TRL saved: all of it but the pickled arguments and the model card."""
    return {file.name: file for file in folder.iterdir() if file.is_file() and file.name not in _LEFT_OUT}


def completion_files(process: int) -> tuple[str, str, str]:
    """The files of a process's completions: tensors, all else, random state."""
    return f"completions-{process}.safetensors", f"completions-{process}.json", f"random-{process}.pth"


def of_as_many(files: set[str], processes: int) -> bool:
    """Whether ``files`` are those of so many processes: TRL pads in each, so that other shares are other tensors."""
    return {completion_files(process)[0] for process in range(processes)} == {
        n for n in files if n.endswith(".safetensors")
    }


def save(
    context: Context,
    draft: ManifestDraft,
    folder: Path,
    update: int,
    updates_per_step: int,
    shared: Shared | None = None,
) -> int:
    """Commit ``folder`` as the checkpoint of ``update`` and remove it; older ones are removed from the store.

    The newest two stay, for one of them may turn out to be damaged, and the newest one between two steps, which needs
    no completions. Called in any thread; of a checkpoint that is ``shared`` in all processes, each with its own files.

    Returns:
        its bytes; in a process that is not the first, those of its own files.

    Raises:
        ServiceError: the store failed, or another process did.
    """
    prefix = checkpoint_prefix(context.config.prefix, update)
    if shared is None:
        files: Sequence[StoredFile] = commit(context.store, prefix, kept_files(folder), draft).manifest.files
    else:
        files = _together(context, prefix, draft, folder, shared)
    if context.rank.first:
        _remove_older(context, updates_per_step)
    shutil.rmtree(folder, ignore_errors=True)
    return sum(file.size for file in files)


def _together(
    context: Context, prefix: str, draft: ManifestDraft, folder: Path, shared: Shared
) -> Sequence[StoredFile]:
    """All processes upload at the same time, and the first one commits when all are done."""
    from selfevo_trainer.distributed import collective  # it imports torch, which the entry point does without

    mine: list[StoredFile] | None = None
    reachable = True
    try:
        mine = upload_part(context.store, prefix, kept_files(folder), shared.write_id)
    except SelfevoError as error:
        reachable = error.reason != reasons.STORE_UNREACHABLE
        raise
    finally:  # the first one waits for each process, also for one that fails
        parts: list[list[StoredFile] | None] = collective.collected(mine, shared.group)
        if reachable and any(part is None for part in parts):
            remove_parts(context.store, prefix, shared.write_id)
    if not context.rank.first:
        return mine
    if failed := [rank for rank, part in enumerate(parts) if part is None]:
        raise ServiceError(f"process {failed[0]} cannot upload its part of a checkpoint; its log says why; try again")
    files = [file for part in parts for file in part or ()]
    return commit_parts(context.store, prefix, files, draft, shared.write_id).manifest.files


def _remove_older(context: Context, updates_per_step: int) -> None:
    kept = 0
    between = False
    for number in _updates(context):
        whole = number % updates_per_step == 0
        if kept >= _KEPT and (between or not whole):
            context.store.delete_prefix(checkpoint_prefix(context.config.prefix, number))
        kept, between = kept + 1, between or whole


def remove_completions(context: Context, update: int) -> None:
    """Remove what an earlier attempt left at ``update``, whose state is to be committed: that attempt generated it with
    weights of its own, which differ from this state where kernels are not reproducible."""
    for place in (COMPLETIONS, GENERATED, GENERATING):
        context.store.delete_prefix(_completions(context, update, place))


def save_completions(context: Context, draft: ManifestDraft, folder: Path, update: int, place: str) -> None:
    """Commit ``folder`` as the completions of the step that is under way at the checkpoint of ``update``, at ``place``.

    Those of an earlier attempt there give way: this attempt could not go on from them, as when they are those of
    another number of processes.
    """
    prefix, files = _completions(context, update, place), kept_files(folder)
    if not commit(context.store, prefix, files, draft).won:
        context.store.delete_prefix(prefix)
        commit(context.store, prefix, files, draft)
    shutil.rmtree(folder, ignore_errors=True)


def _completions(context: Context, update: int, place: str) -> str:
    return f"{checkpoint_prefix(context.config.prefix, update)}/{place}"


def latest(context: Context, updates_per_step: int = 1) -> Found | None:
    """The newest checkpoint that is whole, on this disk.

    A damaged one is passed over, which the log says, and removed, for its place is needed when training gets there
    again. So is one within a step whose completions are gone or those of another number of processes. Nothing else is:
    a store that fails is for the next attempt, and to start anew because access was denied, credentials have expired or
    a newer selfevo wrote the checkpoint would throw hours away.

    Raises:
        InputError: the store refuses to be read, or what lies there is another's or of a newer selfevo.
        ServiceError: the store failed.
    """
    with context.clock.during("checkpoint"):
        for update in _updates(context):
            found = _read(context, update, within=bool(update % updates_per_step))
            if found is not None:
                return found
    return None


def _read(context: Context, update: int, *, within: bool) -> Found | None:
    prefix = checkpoint_prefix(context.config.prefix, update)
    folder, place = _read_completions(context, update, within=within)
    try:
        manifest = _own(context, prefix)
        if manifest is None:
            return None
        if folder is not None or not within:
            return Found(update, _fetched(context, prefix, manifest, f"checkpoint-{update}"), folder, place)
    except CorruptArtifact as error:
        log.warning("the checkpoint of update %d is passed over: %s", update, error)
    context.store.delete_prefix(prefix)
    return None


def _read_completions(context: Context, update: int, *, within: bool) -> tuple[Path | None, str | None]:
    """Those beside the checkpoint of ``update``, and their place: scored; else those of which most parts are, else
    those of which most are generated, which is too little within a step."""
    others = False
    for place in [COMPLETIONS] if within else [COMPLETIONS, *_unscored(context, update)]:
        prefix = _completions(context, update, place)
        try:
            made = _own(context, prefix)
            if made is not None and of_as_many({file.name for file in made.files}, context.rank.size):
                return _fetched(context, prefix, made, _folder(place, update)), place
            others = others or made is not None
        except CorruptArtifact as error:
            log.warning("the completions beside the checkpoint of update %d are passed over: %s", update, error)
            if within:
                return None, None
            context.store.delete_prefix(prefix)
    if within:
        log.warning(
            "the checkpoint after update %d is passed over: it is within a step whose completions are %s",
            update,
            "those of another number of processes" if others else "gone",
        )
    return None, None


def _unscored(context: Context, update: int) -> list[str]:
    """Places of completions that are not all scored, beside the checkpoint of ``update``; the newest first."""
    return [
        in_parts(place, parts)
        for place in (GENERATED, GENERATING)
        for parts in _numbered(context, _completions(context, update, place))
    ]


def _numbered(context: Context, below: str) -> list[int]:
    """Numbers of the directories that are committed below a prefix; the largest first."""
    pattern = re.compile(rf"^{re.escape(below)}/(\d{{8}})/{re.escape(MANIFEST_NAME)}$")
    found = (pattern.match(info.key) for info in context.store.list(below))
    return sorted((int(match[1]) for match in found if match), reverse=True)


def _folder(place: str, update: int) -> str:
    return f"{place.replace('/', '-')}-{update}"


def _own(context: Context, prefix: str) -> Manifest | None:
    return context.own_manifest(prefix)


def _fetched(context: Context, prefix: str, manifest: Manifest, name: str) -> Path:
    def fetched(dest: Path) -> Path:
        try:
            return fetch(context.store, prefix, manifest, dest)
        except CorruptArtifact:
            shutil.rmtree(dest, ignore_errors=True)
            raise

    return context.once_per_pod(name, fetched)


def at(context: Context, update: int, place: str | None) -> Found:
    """The checkpoint of ``update`` on this disk with the completions at ``place``, for a process that is to go on from
    there.

    Raises:
        InputError: the store refuses to be read.
        ServiceError: it is not there or not whole, although the first process has just had it.
    """
    with context.clock.during("checkpoint"):
        places = [(checkpoint_prefix(context.config.prefix, update), f"checkpoint-{update}")]
        if place is not None:
            places.append((_completions(context, update, place), _folder(place, update)))
        folders: Sequence[Path] = [_surely(context, prefix, name, update) for prefix, name in places]
    return Found(update, folders[0], folders[1] if place is not None else None, place)


def _surely(context: Context, prefix: str, name: str, update: int) -> Path:
    try:
        manifest = read_manifest(context.store, prefix)
        if manifest is not None:
            return _fetched(context, prefix, manifest, name)
        why = "it is gone"
    except CorruptArtifact as error:
        why = str(error)
    raise ServiceError(f"the checkpoint of update {update} cannot be fetched by every process: {why}; try again")


def remove(context: Context) -> None:
    """Remove those of a training, and nothing of what was made before it."""
    for update in _updates(context):
        context.store.delete_prefix(checkpoint_prefix(context.config.prefix, update))


def clear(context: Context) -> None:
    """Remove all checkpoints: the step's output is committed."""
    context.store.delete_prefix(f"{context.config.prefix}/checkpoints")
