"""Whether a judge's server computes what transformers did when the judge was made: asked before its scores count.

The step that made the judge scored its anchors by transformers, in the run's dtype, and committed the margins. A server
of other weights, one that scores another token than the last, or one that applies an activation gives others.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from statistics import fmean

from selfevo_contract import reasons
from selfevo_contract.errors import InputError
from selfevo_contract.judging import ANCHORS, AnchorRow
from selfevo_contract.phases import Loading
from selfevo_store import fetch_rows
from selfevo_trainer.context import Context
from selfevo_trainer.inputs.judge_files import JudgeFiles
from selfevo_trainer.judges.served import ServedJudge

log = logging.getLogger("selfevo")

COUNT = 16
"""Anchors that are asked at most."""
LIMIT = {"float32": 0.02, "float16": 0.1, "bfloat16": 0.25}
"""Most that margins may differ on average, as a share of their root mean square: 30 times and more what rounding was
measured to make, and about half of what the least of a server's mistakes makes (benchmarks/results/judge_server.json).
"""
LEAST = {"float32": 0.001, "float16": 0.02, "bfloat16": 0.1}
"""Beside that, for a judge whose margins are all small."""


def check(context: Context, judge: ServedJudge, files: JudgeFiles, loading: Loading, max_length: int) -> None:
    """Hold ``judge``, which servers compute, each of them, against what ``files`` says of its anchors.

    Raises:
        InputError: it computes something else.
        ServiceError: store or server cannot be reached.
    """
    rows, why = _known(context, files, loading, max_length)
    if not rows:
        log.warning("whether the judge's server computes what it should is not checked: %s", why)
        return
    tasks = [row.question for row in rows]
    answers = [*(row.chosen for row in rows), *(row.rejected for row in rows)]
    known, limit, difference = [row.after or 0.0 for row in rows], 0.0, 0.0
    for server in range(judge.replicas):
        scores = judge.score(tasks * 2, answers, server=server)
        margins = [a - b for a, b in zip(scores[: len(rows)], scores[len(rows) :], strict=True)]
        of_one, limit = apart(margins, known, loading.dtype)
        difference = max(difference, of_one)
    if difference > limit:
        raise InputError(
            f"spec.verifier.server gives {len(rows)} of the judge's anchors other margins than transformers did when "
            f"the judge was made: they differ by {difference:.2g} on average, and {limit:.2g} is the most that "
            "rounding explains; remove spec.verifier.server, and report it with the judge's config.json",
            reason=reasons.OTHER_WEIGHTS_SERVED,
        )
    log.info(
        "the judge's server computes what transformers did: the margins of %d anchors differ by %.2g on average",
        *(len(rows), difference),
    )


def apart(margins: Sequence[float], known: Sequence[float], dtype: str) -> tuple[float, float]:
    """The mean absolute difference of ``margins`` from those that are ``known``, and its limit. Pure.

    >>> apart([1.0, -2.25], [1.0, -2.0], "bfloat16")
    (0.125, 0.49528470752104743)
    """
    difference = fmean(abs(a - b) for a, b in zip(margins, known, strict=True))
    size = fmean(margin * margin for margin in known) ** 0.5
    return difference, LEAST[dtype] + LIMIT[dtype] * size


def _known(context: Context, files: JudgeFiles, loading: Loading, max_length: int) -> tuple[list[AnchorRow], str]:
    """Anchors with the judge's own margin; and why there are none. A run that goes on from another (spec.forkFrom) may
    cut answers elsewhere, or load weights in another dtype."""
    with context.clock.during("store"):
        prefix, manifest = context.output_of(files.holder.phase, files.holder.key, "asks that judge")
        settings, loaded = (manifest.inputs.get(part) for part in ("settings", "loading"))
        was = settings.get("maxLength") if isinstance(settings, dict) else None
        if was != max_length:
            return [], f"its anchors were scored with spec.verifier.maxLength {was}, and it is {max_length} here"
        dtype = loaded.get("dtype") if isinstance(loaded, dict) else None
        if dtype != loading.dtype:
            return [], f"its anchors were scored with spec.model.dtype {dtype}, and it is {loading.dtype} here"
        rows = fetch_rows(context.store, prefix, manifest, ANCHORS) if ANCHORS.as_in(manifest) else []
    return [row for row in rows if row.after is not None][:COUNT], "its step has no anchors"
