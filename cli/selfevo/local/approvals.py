"""What a person has approved of a run on this machine (spec.review), in a file beside its status: `selfevo approve` and
`selfevo watch` write it, whoever drives the run reads it.

What is approved is an iteration as the manifest plans it. With other settings of what makes its models, or another
fork, it is another one and wants an approval of its own. However many iterations follow, however its Solver is scored,
published or fine-tuned, it is the same, and so it is when it is computed anew after a rollback.
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
    """Of what makes the iteration's models, which follows from all before it."""


class Approvals:
    """Those of one run."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._file: Path = folder.root / "approved.json"

    def obeyed(self, run: SelfEvolutionRun) -> SelfEvolutionRun:
        """``run``, its spec.approvedIteration raised to what is approved here of it."""
        found = self._read()
        if found is None or run.spec.review is None:
            return run
        approved = min(found.approved_iteration, run.spec.iterations)  # a record that names one beyond is not read
        if approved <= (run.spec.approved_iteration or 0):
            return run
        status = run.status or self._folder.record(run)
        if found.key != _key(run, status.fork, found.approved_iteration):
            return run
        spec = run.spec.model_copy(update={"approved_iteration": approved})
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
    """Digest of the keys of the steps that make the iteration's models as they were asked for: without what a rollback
    made of them, and also where the run is shorter now."""
    spec = run.spec.model_copy(update={"iterations": max(run.spec.iterations, iteration)})
    keys = [step.key for step in plan_of(spec, RunStatus(fork=fork)).making(iteration)]
    return digest(keys) if keys else None
