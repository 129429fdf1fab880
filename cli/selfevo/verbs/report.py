"""`selfevo report`: manifests -> the file that was written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfevo.local.workdir import RunFolder
from selfevo.manifest import load, runs_in
from selfevo.report import Source, write_comparison, write_report
from selfevo.stores import absent, open_run_store, recorded_plan
from selfevo.verbs.show import current_status
from selfevo.views import narrate
from selfevo_contract.errors import InputError

COMPARISON = Path("comparison.html")


def report_run(
    manifest: Path, output: Path | None, *, name: str | None = None, storage: str | None, workdir: Path
) -> Path:
    """Writes the report to ``output`` (``<run>-report.html`` in the current folder when None) and returns its path.

    Raises:
        InputError: there is neither a store nor a record of the run, and so nothing to tell of.
        SelfevoError: something is wrong with the manifest, the store, or the file.
    """
    source = _source(manifest, name, storage, workdir)
    path = output or Path(f"{source.run.metadata.name}-report.html")
    write_report(*source[:3], path, source.failure)
    return path


def report_comparison(
    manifests: Sequence[Path], output: Path | None, *, storage: str | None, workdir: Path
) -> tuple[Path, list[str]]:
    """Writes a page that compares the runs of ``manifests`` with the first one (``comparison.html`` when None).

    Returns:
        its path, and what it says first.

    Raises:
        InputError: a run is named twice, or there is nothing to tell of one.
        SelfevoError: something is wrong with a manifest, a store, or the file.
    """
    asked = [(manifest, name) for manifest in manifests for name in runs_in(manifest)]
    sources = [_source(manifest, name, storage, workdir) for manifest, name in asked]
    seen: dict[object, Path] = {}
    for (manifest, _), source in zip(asked, sources, strict=True):
        metadata, uri = source.run.metadata, source.run.spec.storage.uri
        before = seen.setdefault((metadata.namespace, metadata.name, uri), manifest)
        if before is not manifest:
            raise InputError(
                f"{before} and {manifest} are both the run {metadata.name} in {uri}; name it once, or give one of them "
                "a metadata.name of its own"
            )
    path = output or COMPARISON
    return path, write_comparison(sources, path)


def _source(manifest: Path, name: str | None, storage: str | None, workdir: Path) -> Source:
    run = load(manifest, name=name, storage=storage, cache=workdir)
    folder = RunFolder(workdir, run.metadata)
    if (remark := absent(run)) and folder.read() is None:
        raise InputError(f"store {run.spec.storage.uri} {remark}; there is nothing to report before that")
    status = current_status(run, folder.plan(run), folder, folder.driver())
    steps = recorded_plan(run.spec, status)
    failure = narrate.standing(status).rstrip(".") if status.phase == "Failed" else ""
    run = run.model_copy(update={"status": status})
    return Source(run, steps, open_run_store(run), failure)
