"""The layout in the object store, and the manifest that makes a directory of it exist (docs/design.md, 1 to 3).

    <storage.uri>/<namespace>/<phase>/<key>/MANIFEST.json            the step's output exists when this does
    <storage.uri>/<namespace>/<phase>/<key>/attempts/<id>/<file>     each attempt writes under a name of its own
    <storage.uri>/<namespace>/<phase>/<key>/chunks/<kind>/<first>-<count>/...
                                                                     a part of its rows: a committed directory itself
    <storage.uri>/<namespace>/<phase>/<key>/checkpoints/<update>/... an intra-phase checkpoint: likewise
    <storage.uri>/<namespace>/<phase>/<key>/checkpoints/<update>/completions/...
                                                                     of the step under way at it: likewise
    <storage.uri>/<namespace>/<phase>/<key>/checkpoints/<update>/generated/<parts>/...
                                                                     the same when so many parts of them are scored
    <storage.uri>/<namespace>/<phase>/<key>/checkpoints/<update>/generating/<parts>/...
                                                                     the same when so many parts of them are generated
    <storage.uri>/<namespace>/<phase>/<key>/checkpoints/before/<what>/...
                                                                     what a step made before it trains: likewise
    <storage.uri>/<namespace>/<phase>/<key>/failed/...               what a step failed by, for people: likewise
    <storage.uri>/<namespace>/<phase>/<key>/logs/<attempt>/<pod's index>.<begin>.log
                                                                     the logs of its pods, for people; one object each
    <storage.uri>/<namespace>/runs/<name>/<when>-<digest>.json       what runs there were (run_record.py)

What lies there without a MANIFEST.json beside it does not exist: readers take files only through the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

SCHEMA_VERSION = 3
"""Version of what is stored. It is part of every step's key: a new meaning of the bytes gets new keys."""

MANIFEST_NAME = "MANIFEST.json"

QUESTION_CHUNKS = "questions"
"""Kind of a rollout's chunks that hold questions which nobody has answered yet."""
COMMITTEE_CHUNKS = "committee"
"""Kind of a rollout's chunks that hold questions on which the committee's other Solver has voted."""
ANSWER_CHUNKS = "answers"
"""Kind of the chunks, of a rollout or an evaluation, that hold questions with their answers; the step is whole when
these are."""
ORACLE_CHUNKS = "oracle"
"""Kind of a rollout's chunks that hold what an oracle answered to questions of its sample."""
ANCHOR_CHUNKS = "anchors"
"""Kind of a rollout's chunks that hold what a judge with criteria says of anchors."""

COMPLETIONS = "completions"
"""Place below a checkpoint of the completions of the step under way, all of them scored."""
GENERATED = "generated"
"""The same before all are scored, `in_parts` by how many are."""
GENERATING = "generating"
"""The same before all are generated, `in_parts` by how many are in all processes."""


def step_prefix(namespace: str, phase: str, key: str) -> str:
    """Where a step's output lies, relative to ``storage.uri``."""
    return f"{namespace}/{phase}/{key}"


def step_uri(storage_uri: str, namespace: str, phase: str, key: str) -> str:
    """Where a step's output lies: ``s3://models/selfevo/research/solver-train/<key>``."""
    return f"{storage_uri.rstrip('/')}/{step_prefix(namespace, phase, key)}"


def chunks_prefix(prefix: str, kind: str = "") -> str:
    """Where the step at ``prefix`` has its chunks, of one kind or of all."""
    return f"{prefix}/chunks/{kind}".rstrip("/")


def chunk_prefix(prefix: str, kind: str, numbers: range) -> str:
    """Where the rows with ``numbers`` lie, counted from 0 over the whole step; zero-padded so that listings sort."""
    return f"{chunks_prefix(prefix, kind)}/{numbers.start:08d}-{len(numbers):08d}"


def chunk_places(prefix: str, keys: Iterable[str]) -> list[str]:
    """Where the step at ``prefix`` has committed chunks, of each kind, by ``keys``, a listing of the store. Pure."""
    there = list(keys)
    return [
        chunk_prefix(prefix, kind, numbers)
        for kind in (QUESTION_CHUNKS, COMMITTEE_CHUNKS, ANSWER_CHUNKS, ORACLE_CHUNKS, ANCHOR_CHUNKS)
        for numbers in committed_chunks(prefix, kind, there)
    ]


def committed_chunks(prefix: str, kind: str, keys: Iterable[str]) -> list[range]:
    """The numbers of each chunk that has a manifest among ``keys``, a listing of the store, in order. Pure.

    Chunks may overlap, where attempts cut the step in different ways.
    """
    name = re.compile(rf"{re.escape(chunks_prefix(prefix, kind))}/(\d{{8}})-(\d{{8}})/{re.escape(MANIFEST_NAME)}")
    found = (name.fullmatch(key) for key in keys)
    return sorted(
        (range(int(match[1]), int(match[1]) + int(match[2])) for match in found if match),
        key=lambda numbers: (numbers.start, numbers.stop),
    )


def checkpoint_prefix(prefix: str, update: int) -> str:
    """Where the checkpoint taken after optimizer update ``update`` lies; zero-padded so that listings sort."""
    return f"{prefix}/checkpoints/{update:08d}"


def before_prefix(prefix: str, what: str) -> str:
    """Where a step keeps what it made before it trains, among its checkpoints, with which it is cleared."""
    return f"{prefix}/checkpoints/before/{what}"


def in_parts(place: str, parts: int) -> str:
    """``place`` of completions below a checkpoint when so many parts of them are done."""
    return f"{place}/{parts:08d}"


def failed_prefix(prefix: str) -> str:
    """Where a step that failed for what a model wrote leaves some of it."""
    return f"{prefix}/failed"


def logs_prefix(prefix: str, attempt: str) -> str:
    """Where the logs of an attempt at the step at ``prefix`` are kept."""
    return f"{prefix}/logs/{attempt}"


def kept_log(prefix: str, attempt: str, index: str, begun: str, process: str = "") -> str:
    """Where one process keeps its log: pods by index and begin, processes of a pod as ``rank-<number>`` or ``server``;
    the only one, and the one that starts the others, without."""
    name = f"{index}.{begun}" + (f".{process}" if process else "")
    return f"{logs_prefix(prefix, attempt)}/{name}.log"


def safe_relative(path: str) -> str:
    """``path`` itself, if it stays below whatever it is joined to; both halves of a store use it on every name.

    Raises:
        ValueError: when it is empty, absolute, or has ``.``, ``..``, empty parts, backslashes or NUL.
    """
    parts = path.split("/")
    if not path or path.startswith("/") or "\\" in path or "\x00" in path or any(p in ("", ".", "..") for p in parts):
        raise ValueError(f"path {path!r} must be relative, without '.', '..', backslashes or empty parts")
    return path


RelativePath = Annotated[str, AfterValidator(safe_relative)]

GPU_SECONDS = "gpu"
"""Of a manifest's timings the one that is no activity: the processes' seconds, times the GPUs that their pods saw.
Earlier trainers did not say it."""


class _Stored(BaseModel):
    # ser_json_inf_nan: a diverged loss is NaN. The default would store it as null, which no reader could parse, and a
    # manifest that nobody can read blocks its key for good; as the string "NaN" it comes back as the float it was.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        ser_json_inf_nan="strings",
    )


class StoredFile(_Stored):
    """One file of a committed directory."""

    name: RelativePath
    """The name readers use, e.g. ``model/config.json``."""
    path: RelativePath
    """Where its bytes lie, relative to the committed directory, e.g. ``attempts/6f1c/model/config.json``."""
    size: Annotated[int, Field(ge=0)]
    """Bytes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _fit_in_one_folder(files: list[StoredFile]) -> list[StoredFile]:
    names = {f.name for f in files}
    if len(names) < len(files):
        raise ValueError("two files have the same name")
    for name in names:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            if (folder := "/".join(parts[:depth])) in names:
                raise ValueError(f"{folder!r} is both a file and the folder of {name!r}")
    return files


class ManifestDraft(_Stored):
    """What a phase says about the directory that it commits; the commit adds the rest."""

    schema_version: int = SCHEMA_VERSION
    key: str
    phase: str
    iteration: int = 0
    attempt: str = ""
    """The attempt (Job name or process) that wrote it, for people."""
    metrics: dict[str, float] = {}
    timings: dict[str, float] = {}
    """Seconds by activity, ``total`` and ``GPU_SECONDS``; of chunks, those of all processes that made them."""
    parents: dict[str, str] = {}
    """Role of the input -> ``<phase>/<key>`` of the step that made it, or a model's URI."""
    inputs: dict[str, Any] = {}
    """The whole of what the key was computed from."""
    versions: dict[str, str] = {}


class Manifest(ManifestDraft):
    """What a committed directory holds. Written last, once, with a conditional put."""

    write_id: str
    """Random id of this write: a retried put that meets its own success as 412 recognises itself by it."""
    created_at: str
    """RFC 3339, UTC."""
    files: Annotated[list[StoredFile], AfterValidator(_fit_in_one_folder)]

    def file(self, name: str) -> StoredFile | None:
        """The entry called ``name``, or None."""
        return next((f for f in self.files if f.name == name), None)

    def under(self, folder: str) -> list[StoredFile]:
        """The entries below ``folder/``."""
        return [f for f in self.files if f.name.startswith(folder.rstrip("/") + "/")]


_S3 = re.compile(r"^s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?$")


def split_s3(uri: str) -> tuple[str, str]:
    """``s3://bucket/some/prefix`` -> (``bucket``, ``some/prefix``).

    Raises:
        ValueError: when ``uri`` is not of that form.
    """
    match = _S3.match(uri)
    if match is None:
        raise ValueError(f"{uri!r} is not of the form s3://<bucket>/<prefix>")
    return match["bucket"], (match["prefix"] or "").strip("/")
