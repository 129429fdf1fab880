"""The run that the operator tells of is left in the store, for whoever has the store alone. No phase fails by it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from selfevo_contract.plan import plan_of
from selfevo_contract.process import RUN_ENV, PhaseConfig
from selfevo_contract.run_record import RunRecord, decoded_run
from selfevo_contract.version import selfevo_version
from selfevo_store import ObjectStore, leave_record

_log = logging.getLogger("selfevo")


def leave(environ: Mapping[str, str], config: PhaseConfig, store: ObjectStore) -> None:
    """Write the record of the run that this phase is of, where none says the same."""
    encoded = environ.get(RUN_ENV)
    if not encoded:
        return
    try:
        run = decoded_run(encoded)
        if config.key not in {step.key for step in plan_of(run.spec, run.status).steps}:
            return  # of what follows from scores, which the first steps' record is enough for; or another version's
        leave_record(store, RunRecord.of(run, selfevo_version()), datetime.now(UTC))
    except Exception as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        _log.warning("the run leaves no record in the store, by which `selfevo ui STORE` would show it: %s", why)
