"""`selfevo report`: a manifest -> the file that was written."""

from __future__ import annotations

from pathlib import Path

from selfevo.local.workdir import RunFolder
from selfevo.manifest import load
from selfevo.report import write_report
from selfevo.stores import absent, open_run_store
from selfevo.verbs.show import current_status
from selfevo.views import narrate
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan_of


def report_run(
    manifest: Path, output: Path | None, *, name: str | None = None, storage: str | None, workdir: Path
) -> Path:
    """Writes the report to ``output`` (``<run>-report.html`` in the current folder when None) and returns its path.

    Raises:
        InputError: there is neither a store nor a record of the run, and so nothing to tell of.
        SelfevoError: something is wrong with the manifest, the store, or the file.
    """
    run = load(manifest, name=name, storage=storage, cache=workdir)
    folder = RunFolder(workdir, run.metadata)
    if (remark := absent(run)) and folder.read() is None:
        raise InputError(f"store {run.spec.storage.uri} {remark}; there is nothing to report before that")
    steps = folder.plan(run)
    status = current_status(run, steps, folder, folder.driver())
    steps = plan_of(run.spec, status)
    failure = narrate.standing(status).rstrip(".") if status.phase == "Failed" else ""
    path = output or Path(f"{run.metadata.name}-report.html")
    run = run.model_copy(update={"status": status})
    write_report(run, steps, open_run_store(run), path, failure)
    return path
