"""Where a local run keeps what is not in the store: its status, its processes' logs, scratch. All of it may be lost.

<workdir>/cache/                             files by digest, shared by all runs
<workdir>/runs/<namespace>/<name>/
    status.json                              the run as it was resolved, and its status
    approved.json                            what a person has approved (approvals.py)
    lock                                     held while a `selfevo run` drives it; names its process
    logs/<child>.log                         what each process printed
    children/<child>/                        what each process was given, and its termination message
    scratch/<child>/                         working directories of processes
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from selfevo.files import replace_file
from selfevo_contract import reasons
from selfevo_contract.errors import InputError
from selfevo_contract.plan import Plan, plan_of, rollbacks_of
from selfevo_contract.run import Metadata, SelfEvolutionRun
from selfevo_contract.status import Fork, RunStatus
from selfevo_core.policies import NotFound
from selfevo_core.policies.forking import beginning_of


class RunFolder:
    """The folder of one run."""

    def __init__(self, workdir: Path, metadata: Metadata) -> None:
        self.workdir = workdir.resolve()
        self.name = f"{metadata.namespace}/{metadata.name}"
        self.root = self.workdir / "runs" / metadata.namespace / metadata.name
        self.cache = self.workdir / "cache"
        self.logs = self.root / "logs"
        self.children = self.root / "children"
        self.scratch = self.root / "scratch"
        self._status = self.root / "status.json"
        self._lock = self.root / "lock"

    def make(self) -> None:
        """Raises InputError when it cannot be written."""
        try:
            for folder in (self.cache, self.logs, self.children, self.scratch):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise self._unwritable(error) from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run: one process drives it at a time.

        Raises:
            InputError: another one does.
        """
        try:
            held = self._lock.open("a+")
        except OSError as error:
            raise self._unwritable(error) from None
        with held as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"run {self.name} is already being driven by process {self._holder()} in {self.root}; wait for it, "
                    "stop it with Ctrl-C, or choose another --workdir",
                    reason=reasons.ALREADY_RUNNING,
                ) from None
            except OSError as error:
                raise InputError(
                    f"--workdir {self.workdir} cannot be locked ({error.strerror}); name a folder on a local disk"
                ) from None
            with contextlib.suppress(OSError):  # a full disk: the number is for people only
                file.seek(0)
                file.truncate()
                file.write(str(os.getpid()))
                file.flush()
            # Whoever held the lock before is gone, and with it whoever used these.
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.scratch.mkdir(exist_ok=True)
            yield

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"--workdir {self.workdir} cannot be written ({error.strerror}); name a folder that you may write"
        )

    def driver(self) -> int | None:
        """The process that drives the run now."""
        try:
            with self._lock.open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._holder()
            return int(holder) if holder.isdigit() else 0
        except OSError:
            pass
        return None

    def _holder(self) -> str:
        with contextlib.suppress(OSError):
            return self._lock.read_text().strip() or "unknown"
        return "unknown"

    def read(self) -> SelfEvolutionRun | None:
        """The run as it was last recorded; None when there is no record, or none that can be read."""
        try:
            return SelfEvolutionRun.model_validate_json(self._status.read_bytes())
        except (OSError, ValidationError):
            return None

    def uid(self, run: SelfEvolutionRun, *, wanted: bool) -> str:
        """The UID that is recorded here, by which a run that goes on has one trace; a new one where it is wanted."""
        known = self.read()
        recorded = known.metadata.uid if known is not None else ""
        return recorded or run.metadata.uid or (str(uuid.uuid4()) if wanted else "")

    def plan(self, run: SelfEvolutionRun) -> Plan:
        """The plan of ``run``, as its manifest has it, with what is recorded here.

        Raises:
            InputError: it goes on from another run, of which too little is recorded.
        """
        return plan_of(run.spec, self.record(run))

    def record(self, run: SelfEvolutionRun) -> RunStatus:
        """What is recorded here, with the fork and the rollbacks that are about ``run`` as its manifest has it.

        Raises:
            InputError: it goes on from another run, of which too little is recorded.
        """
        known = self.read()
        status = known.status if known is not None and known.status is not None else RunStatus()
        fork = self._fork(run, status.fork)
        return status.model_copy(update={"fork": fork, "rollbacks": rollbacks_of(run.spec, status.rollbacks, fork)})

    def _fork(self, run: SelfEvolutionRun, recorded: Fork | None) -> Fork | None:
        """What ``run`` begins with: as it is recorded, or else as the other run's record has it now."""
        asked = run.spec.fork_from
        if asked is None:
            return None
        if recorded is not None and (recorded.run, recorded.iteration) == (asked.run, asked.iteration):
            return recorded
        source = RunFolder(self.workdir, run.metadata.model_copy(update={"name": asked.run}))
        other = source.read()
        if other is None and asked.run != run.metadata.name:
            raise InputError(
                f"spec.forkFrom.run is {asked.run!r}, and {source.root} has no record of it; `selfevo run` it first, "
                "or name its --workdir",
                reason=reasons.FORK_PENDING,
            )
        found = beginning_of(run, other)
        if isinstance(found, NotFound):
            raise InputError(found.message, reason=reasons.FORK_REFUSED if found.final else reasons.FORK_PENDING)
        return found

    def write(self, run: SelfEvolutionRun) -> None:
        """Record the run, all of it or nothing."""
        document = run.model_dump(mode="json", by_alias=True, exclude_none=True)
        replace_file(self._status, json.dumps(document, indent=1))
