"""What a run that is driven here leaves of itself in its store, for whoever has the store alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from selfevo_contract.errors import SelfevoError
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.run_record import RunRecord
from selfevo_contract.status import RunStatus
from selfevo_contract.version import selfevo_version
from selfevo_store import ObjectStore, leave_record


class StoreRecord:
    """Written at the beginning, and when the run goes back. No record is worth a run: a failure is reported once."""

    def __init__(self, store: ObjectStore, say: Callable[[str], None]) -> None:
        self._store, self._say = store, say
        self._rollbacks = -1

    def __call__(self, run: SelfEvolutionRun) -> None:
        rollbacks = len((run.status or RunStatus()).rollbacks)
        if rollbacks == self._rollbacks:
            return
        self._rollbacks = rollbacks
        try:
            leave_record(self._store, RunRecord.of(run, selfevo_version()), datetime.now(UTC))
        except SelfevoError as error:
            self._say(f"`selfevo ui STORE` will not show this run, whose record cannot be written: {error}")
