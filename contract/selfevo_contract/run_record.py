"""What a run leaves of itself in its store: its name and spec, by which whoever has the store alone finds its steps.

    <storage.uri>/<namespace>/runs/<name>/<when>-<sha256 of it>.json

An object is never replaced: a run that asks for something else, or went back, leaves another one. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError

from selfevo_contract import reasons
from selfevo_contract.artifacts import SCHEMA_VERSION
from selfevo_contract.base import Closed, Sha256, Wire
from selfevo_contract.canonical import canonical_json, digest
from selfevo_contract.errors import InputError
from selfevo_contract.explain import explain
from selfevo_contract.plan import Plan, plan_of
from selfevo_contract.run import API_VERSION, KIND, Metadata, SelfEvolutionRun
from selfevo_contract.spec.names import DnsLabel
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.status import Fork, Rollback, RunStatus

_NAME = re.compile(r"([^/]+)/runs/([^/]+)/(\d{8}T\d{12}Z)-([0-9a-f]{64})\.json")
_WHEN = "%Y%m%dT%H%M%S%fZ"


class RunRecord(Wire):
    """A run, without where it stands."""

    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION
    """Of the artifacts that its steps are."""
    selfevo: str
    """The version that wrote it."""
    namespace: DnsLabel
    name: DnsLabel
    uid: str = ""
    """The object's in a cluster; a run on one machine has one where it is traced."""
    generation: int = 1
    """The object's: a pod that was made for an earlier spec may start after one for a later spec."""
    spec: RunSpec
    """Without variables of pods, which the store's readers need not see, and not suspended."""
    fork: Fork | None = None
    rollbacks: list[Rollback] = []
    plan: Sha256
    """Digest of its steps' keys: a version that computes others would search for steps that nobody made."""

    @classmethod
    def of(cls, run: SelfEvolutionRun, version: str) -> Self:
        """What ``run`` with its status leaves, written by ``version`` of selfevo."""
        metadata, known = run.metadata, _planned_by(run)
        return cls(
            selfevo=version,
            namespace=metadata.namespace,
            name=metadata.name,
            uid=metadata.uid,
            generation=metadata.generation,
            spec=_bare(run.spec),
            fork=known.fork,
            rollbacks=known.rollbacks,
            plan=_digest(plan_of(run.spec, known)),
        )

    @property
    def run(self) -> SelfEvolutionRun:
        """The run, whose status says only what its plan depends on."""
        return SelfEvolutionRun.model_construct(
            api_version="selfevo.dev/v1alpha1",
            kind="SelfEvolutionRun",
            metadata=Metadata(name=self.name, namespace=self.namespace, uid=self.uid, generation=self.generation),
            spec=self.spec,
            status=RunStatus(fork=self.fork, rollbacks=self.rollbacks),
        )

    def follows(self, newest: RunRecord) -> bool:
        """Whether it says something else than ``newest``, and nothing older of the same object."""
        if self.uid and newest.uid == self.uid and newest.generation > self.generation:
            return False
        return newest.model_copy(update={"generation": self.generation, "selfevo": self.selfevo}) != self

    def to_bytes(self) -> bytes:
        """The one way to write it."""
        return canonical_json(self.wire())


def encoded_run(run: SelfEvolutionRun) -> str:
    """``run`` as a trainer's environment holds it: all that the record needs but the version.

    JSON by zlib in base64, a third of its length: every Job has it, and every event about a Job.
    """
    status = _planned_by(run).model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": run.metadata.model_dump(include={"name", "namespace", "uid", "generation"}),
        "spec": _bare(run.spec).wire(),
        **({"status": status} if status else {}),
    }
    return base64.b64encode(zlib.compress(json.dumps(document, separators=(",", ":")).encode())).decode("ascii")


def decoded_run(encoded: str) -> SelfEvolutionRun:
    """The run of `encoded_run`.

    Raises:
        ValueError: it is none.
    """
    try:
        text = zlib.decompress(base64.b64decode(encoded, validate=True))
    except zlib.error as error:
        raise ValueError(str(error)) from None
    return SelfEvolutionRun.model_validate_json(text)


def records_prefix(namespace: str, name: str = "") -> str:
    """Where the records of a namespace's runs lie, or of one of them."""
    return f"{namespace}/runs/{name}".rstrip("/")


def record_key(record: RunRecord, now: datetime, newest: str = "") -> str:
    """Where ``record`` is written now; of one run, names sort by time, and this one after ``newest``."""
    sha256 = hashlib.sha256(record.to_bytes()).hexdigest()
    when = now.astimezone(UTC).strftime(_WHEN)
    match = _NAME.fullmatch(newest)
    newest_at = _moment(match[3]) if match else None
    if newest_at is not None and newest_at.strftime(_WHEN) >= when:  # another machine's clock is ahead
        when = (newest_at + timedelta(microseconds=1)).strftime(_WHEN)
    return f"{records_prefix(record.namespace, record.name)}/{when}-{sha256}.json"


def newest_records(keys: Iterable[str]) -> dict[tuple[str, str], str]:
    """Namespace and name of each run -> its newest record among ``keys``, a listing of the store."""
    found = ((_NAME.fullmatch(key), key) for key in sorted(keys))
    return {(match[1], match[2]): key for match, key in found if match and _moment(match[3])}


def _moment(when: str) -> datetime | None:
    """None where it is no time, or one after which there is none."""
    try:
        found = datetime.strptime(when, _WHEN)
    except ValueError:
        return None
    return found if found.year < datetime.max.year else None


def _digest_in(key: str) -> str:
    match = _NAME.fullmatch(key)
    return match[4] if match else ""


def parsed(data: bytes, key: str, uri: str) -> RunRecord:
    """The record whose bytes are ``data``; ``uri`` is for messages.

    Raises:
        InputError: it is damaged, of another version, or another run's.
    """
    if hashlib.sha256(data).hexdigest() != _digest_in(key):
        raise InputError(
            f"{uri}: is damaged (its digest is not the one in its name); remove it, and the next `selfevo run` or pod "
            "of the run writes it anew",
            reason=reasons.CORRUPT_ARTIFACT,
        )
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{uri}: is not a record of a run; remove it", reason=reasons.FOREIGN_MANIFEST)
    _check_version(content, uri)
    try:
        record = RunRecord.model_validate_json(data)
    except ValidationError as error:
        raise InputError(
            f"{uri}: cannot be read by this selfevo ({explain(error, RunRecord)[0]}); use selfevo "
            f"{str(content.get('selfevo'))[:40]}, which wrote it",
            reason=reasons.FOREIGN_MANIFEST,
        ) from None
    place = newest_records([key])
    if (record.namespace, record.name) not in place:
        raise InputError(
            f"{uri}: is the record of {record.namespace}/{record.name}, which lies elsewhere; remove it",
            reason=reasons.FOREIGN_MANIFEST,
        )
    if not _is_possible(record):
        raise InputError(
            f"{uri}: goes on from, or went back to, an iteration that its spec does not have; remove it",
            reason=reasons.FOREIGN_MANIFEST,
        )
    if _digest(plan_of(record.spec, record.run.status)) != record.plan:
        raise InputError(
            f"{uri}: was written by selfevo {record.selfevo}, and this version computes other keys for its steps; use "
            "the version that wrote it",
            reason=reasons.PLAN_VERSION,
        )
    return record


def _is_possible(record: RunRecord) -> bool:
    """Whether fork and rollbacks are ones that a run with this spec may have."""
    asked, fork = record.spec.fork_from, record.fork
    if fork is not None and (asked is None or (fork.run, fork.iteration) != (asked.run, asked.iteration)):
        return False
    return all(1 <= rollback.iteration <= record.spec.iterations for rollback in record.rollbacks)


def _check_version(content: dict[str, Any], uri: str) -> None:
    """First the version: another one's record may have fields that the model refuses."""
    version = content.get("schemaVersion")
    if isinstance(version, int) and version != SCHEMA_VERSION:
        remedy = "upgrade selfevo" if version > SCHEMA_VERSION else "use the version that wrote it"
        raise InputError(
            f"{uri}: has schemaVersion {version}, and this selfevo reads runs of {SCHEMA_VERSION}; {remedy}",
            reason=reasons.MANIFEST_TOO_NEW if version > SCHEMA_VERSION else reasons.PLAN_VERSION,
        )


def _planned_by(run: SelfEvolutionRun) -> RunStatus:
    status = run.status or RunStatus()
    return RunStatus(fork=status.fork, rollbacks=status.rollbacks)


def _digest(plan: Plan) -> str:
    return digest([step.key for step in plan.steps])


def _bare(spec: RunSpec) -> RunSpec:
    changes: dict[str, Any] = {"suspend": False}
    for field in RunSpec.model_fields:
        part = getattr(spec, field)
        pods: Any = part if field == "pods" else getattr(part, "pods", None)
        if not getattr(pods, "env", None):
            continue
        bare: Closed = pods.model_copy(update={"env": []})
        changes[field] = bare if field == "pods" else part.model_copy(update={"pods": bare})
    return spec.model_copy(update=changes)
