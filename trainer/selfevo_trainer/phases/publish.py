"""publish: a Solver, its card and its curricula are put where spec.publish.to says (docs/publish.md).

What is there already with the same content is left alone; what is there with other content is refused, before anything
is written. So a process that is killed at any point is tried again without harm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from selfevo_contract.artifacts import Manifest
from selfevo_contract.digests import file_digest
from selfevo_contract.phases import EVALUATE, SOLVER_ROLLOUT, VERIFIER_TRAIN, PublishInputs, StepModelRef
from selfevo_contract.process import PhaseResult
from selfevo_contract.rows import CURRICULUM
from selfevo_contract.spec.publish import HUB
from selfevo_store import fetch
from selfevo_trainer.context import Context
from selfevo_trainer.models import adapters
from selfevo_trainer.publishing.card import Curriculum, Facts, data_card, model_card
from selfevo_trainer.publishing.hub import HubRepository, hub_token
from selfevo_trainer.publishing.place import CARD, Place, missing
from selfevo_trainer.publishing.stored import StoredFolder
from selfevo_trainer.publishing.weights import files_to_publish

RECORD = "publication.json"
"""What was published: names and digests, by the address that it went to."""


def run(context: Context, inputs: PublishInputs) -> PhaseResult:
    """Publish what is missing, and commit a record of it."""
    token = hub_token(inputs.to) if inputs.to.startswith(HUB) else ""
    context.progress("collecting", 0, 1)
    curricula, tables = curricula_of(context, inputs)
    weights = files_to_publish(context, inputs)
    card = model_card(inputs, facts_of(context, inputs, curricula, adapter=adapters.CONFIG in weights))
    files = {**weights, CARD: _written(context.workdir / "card" / CARD, card)}
    parts: list[tuple[Place, Mapping[str, Path]]]
    if token:
        model = HubRepository(inputs.to, "model", inputs.revision, token, private=inputs.private)
        parts = [(model, files)]
        if inputs.curriculum:
            data = HubRepository(inputs.to, "dataset", inputs.revision, token, private=inputs.private)
            about = _written(context.workdir / "data-card" / CARD, data_card(inputs, curricula))
            parts.insert(0, (data, {**tables, CARD: about}))  # what a card names is there when the card is
    else:
        place = StoredFolder(inputs.to, inputs.revision, context.config.storage)
        parts = [(place, {**files, **(tables if inputs.curriculum else {})})]
    return _publish(context, inputs, parts)


def _publish(context: Context, inputs: PublishInputs, parts: list[tuple[Place, Mapping[str, Path]]]) -> PhaseResult:
    with context.clock.during("publication"):
        # All places are read before anything is written to one of them.
        open_ones = [missing(place, files) for place, files in parts]
        total, done, versions = sum(map(len, open_ones)), 0, dict[str, str]()
        for (place, _), still in zip(parts, open_ones, strict=True):
            context.progress("publishing", done, total)
            versions[place.address] = place.put(still, f"Solver of iteration {inputs.iteration}") if still else ""
            done += len(still)
    record = [
        {
            "address": place.address,
            "version": versions[place.address],
            "files": {name: file_digest(path) for name, path in sorted(files.items())},
        }
        for place, files in parts
    ]
    out = {
        RECORD: _written(context.workdir / RECORD, json.dumps(record, indent=2) + "\n"),
        CARD: parts[-1][1][CARD],
    }
    every = [path for _, files in parts for path in files.values()]
    metrics = {"files": len(every), "bytes": sum(path.stat().st_size for path in every), "put": total}
    committed = context.commit(context.config.prefix, out, {name: float(value) for name, value in metrics.items()})
    return context.result("committed" if committed.won else "found", committed.manifest.metrics)


def curricula_of(context: Context, inputs: PublishInputs) -> tuple[list[Curriculum], dict[str, Path]]:
    """The curricula, and their files by the names that they are published under."""
    found: list[Curriculum] = []
    files: dict[str, Path] = {}
    for made in inputs.rollouts:
        prefix, manifest = context.output_of(SOLVER_ROLLOUT.name, made.key, "tells what its Solver was trained on")
        table = CURRICULUM.as_in(manifest)
        stored = None if table is None else manifest.file(table.name)
        if table is None or stored is None:
            continue
        name = f"curriculum/iteration-{made.iteration}{Path(table.name).suffix}"
        found.append(Curriculum(made.iteration, name, stored.sha256, manifest.metrics.get("kept")))
        if inputs.curriculum:
            dest = context.workdir / "curricula" / str(made.iteration)
            folder = fetch(context.store, prefix, manifest, dest, [table.name])
            files[name] = folder / table.name
    return found, files


def facts_of(context: Context, inputs: PublishInputs, curricula: list[Curriculum], *, adapter: bool) -> Facts:
    """What the card says beside the inputs."""

    def manifest_of(phase: str, key: str | None) -> Manifest | None:
        return None if key is None else context.output_of(phase, key, "is shown on the card")[1]

    assert isinstance(inputs.model, StepModelRef)
    scores, base = (manifest_of(EVALUATE.name, key) for key in (inputs.scores, inputs.base_scores))
    judge = manifest_of(VERIFIER_TRAIN.name, inputs.judge)
    if inputs.rubric is not None and inputs.rollouts:
        judge = manifest_of(SOLVER_ROLLOUT.name, inputs.rollouts[-1].key)
    trained = manifest_of(inputs.model.phase, inputs.model.key)
    return Facts(
        scores=scores.metrics if scores else {},
        base=base.metrics if base else {},
        curricula=curricula,
        judge=judge.metrics if judge else None,
        versions=trained.versions if trained else {},
        adapter=adapter,
    )


def _written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
