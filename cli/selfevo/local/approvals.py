"""What a person has approved of a run on this machine (spec.review), in a file beside its status: `selfevo approve` and
`selfevo watch` write it, whoever drives the run reads it.

What is approved is an iteration as the manifest plans it. With other settings, or another fork, it is another one and
wants an approval of its own; computed anew after a rollback, it is the same.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from selfevo.files import replace_file
from selfevo.local.workdir import RunFolder
from selfevo_contract.base import Sha256, Wire
from selfevo_contract.canonical import digest
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import Fork, RunStatus


class Approval(Wire):
    """The file."""

    approved_iteration: int
    key: Sha256
    """Of what the iteration computes, which follows from all before it."""


class Approvals:
    """Those of one run."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._file: Path = folder.root / "approved.json"

    def obeyed(self, run: SelfEvolutionRun) -> SelfEvolutionRun:
        """``run``, its spec.approvedIteration raised to what is approved here of it."""
        found = self._read()
        if found is None or run.spec.review is None or found.approved_iteration <= (run.spec.approved_iteration or 0):
            return run
        status = run.status or self._folder.record(run)
        if found.key != _key(run, status.fork, found.approved_iteration):
            return run
        spec = run.spec.model_copy(update={"approved_iteration": found.approved_iteration})
        return run.model_copy(update={"spec": spec})

    def raised(self, run: SelfEvolutionRun) -> bool:
        """Whether more of ``run`` is approved here than its spec says."""
        return self.obeyed(run) is not run

    def approve(self, run: SelfEvolutionRun, iteration: int) -> None:
        """Record that ``iteration`` of ``run``, and all before it, may begin.

        Raises:
            InputError: it cannot be written, or what the run goes on from is not known.
        """
        key = _key(run, self._folder.record(run).fork, iteration)
        if key is None:
            raise InputError(f"iteration {iteration} of run {self._folder.name} is not planned; name another one")
        self._folder.make()
        try:
            replace_file(self._file, Approval(approved_iteration=iteration, key=key).model_dump_json(by_alias=True))
        except OSError as error:
            raise InputError(
                f"{self._file} cannot be written ({error.strerror}); make room, or its folder yours"
            ) from None

    def _read(self) -> Approval | None:
        try:
            return Approval.model_validate_json(self._file.read_bytes())
        except (OSError, ValidationError):
            return None


def _key(run: SelfEvolutionRun, fork: Fork | None, iteration: int) -> str | None:
    """Digest of the keys of the iteration's steps as it was asked for: without what a rollback made of it."""
    keys = [step.key for step in plan_of(run.spec, RunStatus(fork=fork)).steps if step.iteration == iteration]
    return digest(keys) if keys else None
