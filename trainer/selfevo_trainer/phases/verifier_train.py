"""verifier-train: the first judge begins (iteration 0); each iteration it is trained on pairs, and promoted or not
(docs/verifier.md)."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfevo_contract import reasons
from selfevo_contract.canonical import derive_seed, digest
from selfevo_contract.digests import file_digest, model_files
from selfevo_contract.errors import DataError, InputError, SelfevoError
from selfevo_contract.judging import (
    AFTER,
    ANCHORS,
    BEFORE,
    BEYOND,
    BY_LENGTH,
    CHANCE,
    CHANCE_REMEDY,
    ERROR,
    JUDGE_FILE,
    LENGTH_AFTER,
    LENGTH_BEFORE,
    PAIR_POOL,
    PAIRS,
    PROMOTED,
    AnchorRow,
    PairRow,
    Verdict,
    is_by_chance,
)
from selfevo_contract.phases import SOLVER_ROLLOUT, StepModelRef, VerifierTrainInputs
from selfevo_contract.process import PhaseResult
from selfevo_contract.rows import CURRICULUM, METRICS, UpdateRow, write_rows
from selfevo_store import fetch_rows
from selfevo_trainer.answers.extraction import normalise_question
from selfevo_trainer.context import Context
from selfevo_trainer.grpo import checkpoints
from selfevo_trainer.grpo.train import summary
from selfevo_trainer.inputs import preflight, room
from selfevo_trainer.inputs.anchors import FIELD, Anchor, Anchors, read_anchors
from selfevo_trainer.inputs.judge_files import fetch_judge, verdict_of
from selfevo_trainer.inputs.model_files import fetch_model, fetch_reward_model
from selfevo_trainer.judges import Judge, open_judge
from selfevo_trainer.judges.fitting import check_judge
from selfevo_trainer.judges.promotion import Comparison, Lengths, compare, lengths
from selfevo_trainer.judges.scalar import FIELD as JUDGE_FIELD
from selfevo_trainer.judges.scalar import ScalarJudge
from selfevo_trainer.judges.train import Training, train_judge
from selfevo_trainer.pairs import kept
from selfevo_trainer.pairs.making import Written, rows_of, write_pairs
from selfevo_trainer.pairs.measured import Measured, measured
from selfevo_trainer.pairs.reach import REACH, asked, lowest, within

POOL = 10_000
"""The newest pairs that are kept for replay."""
SUMMARY = ("loss", "accuracy", "margin")

log = logging.getLogger("selfevo")


def run(context: Context, inputs: VerifierTrainInputs) -> PhaseResult:
    """Begin a judge, or train the one before; commit it, or whose judge stays."""
    preflight.check(context, inputs)
    anchors = read_anchors(context, inputs.settings)
    return begin(context, inputs, anchors) if inputs.judge is None else go_on(context, inputs, inputs.judge, anchors)


def begin(context: Context, inputs: VerifierTrainInputs, anchors: Anchors) -> PhaseResult:
    """The first judge: the reward model as it is, or the base with a score head begun on a part of the anchors."""
    settings, history = inputs.settings, list[UpdateRow]()
    assert inputs.base is not None
    if settings.model is not None:
        begun = fetch_reward_model(context, inputs.base)
        check_judge(begun, inputs.loading, settings.max_length, f"{JUDGE_FIELD} is {inputs.base.uri!r}")
        files = {file.name: file for file in model_files(begun)}
    else:
        begun = fetch_model(context, inputs.base, "base")
        check_judge(begun, inputs.loading, settings.max_length, f"spec.model.uri is {inputs.base.uri!r}")
        room.check_training(context, inputs, settings.head.max_steps, begun)
        pairs = [
            PairRow(question=each.question, chosen=each.chosen, rejected=each.rejected, maker="anchors")
            for each in anchors.beginning
        ]
        head, seed = settings.head, derive_seed(inputs.seed, "head")
        how = Training(head.max_steps, head.learning_rate, settings.warmup, inputs.seed, head=seed)
        files, history = train_judge(context, begun, pairs, settings, inputs.loading, how)
    rows = [anchor_row(each) for each in anchors.sealed]
    after = weigh(context, inputs, files, rows)
    rows = [row.model_copy(update={"after": margin}) for row, margin in zip(rows, after, strict=True)]
    metrics = {
        PROMOTED: 1.0,
        **anchor_metrics(compare(rows), None),
        **length_metrics(lengths(rows)),
        "pairs/trained": float(len(anchors.beginning)),
    }
    return commit(context, files, None, {**ANCHORS.write(context.workdir, rows)}, history, metrics)


def go_on(context: Context, inputs: VerifierTrainInputs, judge: StepModelRef, anchors: Anchors) -> PhaseResult:
    """The judge before is trained on this iteration's pairs and some of earlier ones.

    Raises:
        DataError: no pair is left to train on.
        InputError: a pair asks the question of a sealed anchor, or the disk is too small for a checkpoint.
    """
    settings = inputs.settings
    with context.clock.during("store"):
        place, manifest, before = verdict_of(context, judge, "trains that judge")
        earlier = fetch_rows(context.store, place, manifest, PAIR_POOL) if PAIR_POOL.as_in(manifest) else []
        rollout, its = context.output_of(SOLVER_ROLLOUT.name, inputs.rollout or "", "makes pairs of that curriculum")
        curriculum = fetch_rows(context.store, rollout, its, CURRICULUM)
    start = fetch_judge(context, judge).path
    room.check_training(context, inputs, settings.max_steps, start)
    # Scores of another judge, as those of an earlier curriculum are, say nothing beside this one's.
    same = its.parents.get("judge") == f"{judge.phase}/{judge.key}"
    means = {row.question: row.share if same and not row.replayed else None for row in curriculum}
    rows, sealed = prepared(context, inputs, judge, Tasks(means, int(its.inputs["samples"])), anchors)
    worth = worth_of(inputs, anchors, sealed)
    try:
        fresh, again = to_train(inputs, rows, earlier, anchors)
    except (DataError, InputError):
        checkpoints.clear(context)  # no attempt will go on from what was kept
        raise
    how = Training(settings.max_steps, settings.learning_rate, settings.warmup, inputs.seed)
    files, history = train_judge(context, start, [*fresh, *again], settings, inputs.loading, how)
    after = weigh(context, inputs, files, sealed)
    sealed = [row.model_copy(update={"after": margin}) for row, margin in zip(sealed, after, strict=True)]
    data, own = (compare([row for row in sealed if row.source == source]) for source in ("data", "own"))
    worse = any(each is not None and each.worse_by(settings.promotion.standard_errors) for each in (data, own))
    found = lengths(sealed)
    by_length = found.refuses(settings.promotion.longest_correlation)
    refused = worse or by_length
    metrics = {
        PROMOTED: float(not refused),
        **anchor_metrics(data, own),
        **length_metrics(found),
        BY_LENGTH: float(by_length),
        **pair_metrics(rows, worth),
        **({} if settings.gate.reach is None else {BEYOND: float(sum(row.dropped == REACH for row in rows))}),
        "pairs/trained": float(len(fresh) + len(again)),
        "pairs/replayed": float(len(again)),
    }
    # What made a judge worse is not trained on again.
    pool = earlier if refused else [*earlier, *fresh][-POOL:]
    tables = {
        **PAIRS.write(context.workdir, [*rows, *again]),
        **PAIR_POOL.write(context.workdir, pool),
        **ANCHORS.write(context.workdir, sealed),
    }
    return commit(context, files, before if refused else None, tables, history, metrics)


@dataclass(frozen=True)
class Tasks:
    """The curriculum's tasks."""

    means: Mapping[str, float | None]
    """The mean score of each task's answers by the judge before; None where another judge gave it."""
    samples: int
    """How many answers that are."""


def prepared(
    context: Context, inputs: VerifierTrainInputs, judge: StepModelRef, tasks: Tasks, anchors: Anchors
) -> tuple[list[PairRow], list[AnchorRow]]:
    """The pairs and the sealed anchors, as the judge before finds them; those of an earlier attempt, if there was one
    and the anchors are still the same.

    Raises:
        Interrupted: SIGTERM came before they were kept.
    """

    def made() -> kept.Tables:
        checkpoints.remove(context)  # of a training on pairs that turned out to be damaged, or of other anchors
        reach: Sequence[str] = []
        if inputs.settings.gate.reach is not None:
            questions = (anchor.question for anchor in anchors.sealed)
            reach = asked(questions, tasks.samples, derive_seed(inputs.seed, "reach"))
        written = write_pairs(context, inputs, list(tasks.means), reach)
        return [*judged_before(context, inputs, judge, written, anchors, tasks.means)]

    rows, sealed = kept.once(context, "pairs", [PAIRS, ANCHORS], made, lambda found: other_anchors(found[1], anchors))
    return rows, sealed


def other_anchors(sealed: Sequence[AnchorRow], anchors: Anchors) -> str | None:
    """Why ``sealed`` cannot be used with ``anchors``, if it was made with others: ``anchors.data.digest`` may be left
    out, and then the step's key says nothing of them."""
    before = [(row.question, row.chosen, row.rejected) for row in sealed if row.source == "data"]
    if before == [(anchor.question, anchor.chosen, anchor.rejected) for anchor in anchors.sealed]:
        return None
    return f"{FIELD} had other anchors then; write its digest into {FIELD}.digest, so that they cannot change in a run"


def judged_before(
    context: Context,
    inputs: VerifierTrainInputs,
    judge: StepModelRef,
    written: Written,
    anchors: Anchors,
    means: Mapping[str, float | None],
) -> tuple[list[PairRow], list[AnchorRow]]:
    """The pairs and the sealed anchors by the judge before; the first one asks the gate."""
    settings = inputs.settings
    first: Judge | None = None
    if settings.gate.parts and inputs.first_judge is not None:
        first = open_judge(context, inputs.first_judge, inputs.loading, settings.max_length, "first-judge")
    rows = rows_of(written, inputs, first)
    if first is not None:
        first.close()
    sealed = [*map(anchor_row, anchors.sealed), *written.own]
    with contextlib.closing(open_judge(context, judge, inputs.loading, settings.max_length)) as before:
        margins = margins_of(before, sealed)
        sealed = [row.model_copy(update={"before": margin}) for row, margin in zip(sealed, margins, strict=True)]
        of_pairs = margins_of(before, rows)
        marked = [
            row.model_copy(update={"margin": margin, "judge": before.digest})
            for row, margin in zip(rows, of_pairs, strict=True)
        ]
        if settings.gate.reach is not None:
            scores = before.score([task for task, _ in written.reach], [answer for _, answer in written.reach])
            reached = zip((task for task, _ in written.reach), scores, strict=True)
            marked = within(marked, means, lowest(reached, settings.gate.reach))
    worth = worth_of(inputs, anchors, sealed)
    rows = [
        row if row.dropped or worth[row.maker].used else row.model_copy(update={"dropped": "maker"}) for row in marked
    ]
    return rows, sealed


def worth_of(inputs: VerifierTrainInputs, anchors: Anchors, sealed: Sequence[AnchorRow]) -> dict[str, Measured]:
    """What each maker is worth, by the margins of the judge before; the data's anchors come first in ``sealed``."""
    margins = [row.before for row in sealed[: len(anchors.sealed)] if row.before is not None]
    return {maker: measured(maker, anchors.sealed, margins) for maker in inputs.settings.pairs}


def anchor_row(anchor: Anchor) -> AnchorRow:
    """An anchor that no judge has been asked about."""
    return AnchorRow(question=anchor.question, chosen=anchor.chosen, rejected=anchor.rejected, source="data")


def margins_of(judge: Judge, rows: Sequence[AnchorRow] | Sequence[PairRow]) -> list[float]:
    """Score of chosen less that of rejected, of each row."""
    questions = [row.question for row in rows]
    scores = judge.score(questions * 2, [*(row.chosen for row in rows), *(row.rejected for row in rows)])
    return [a - b for a, b in zip(scores[: len(rows)], scores[len(rows) :], strict=True)]


def weigh(
    context: Context, inputs: VerifierTrainInputs, files: Mapping[str, Path], rows: Sequence[AnchorRow]
) -> list[float]:
    """Margins of ``rows`` by the judge that ``files`` are, loaded as later phases will load it."""
    folder = next(iter(files.values())).parent
    judge = ScalarJudge.load(folder, inputs.loading, inputs.settings.max_length, "")
    with contextlib.closing(judge), context.clock.during("judging"):
        return margins_of(judge, rows)


def to_train(
    inputs: VerifierTrainInputs, rows: Sequence[PairRow], earlier: Sequence[PairRow], anchors: Anchors
) -> tuple[list[PairRow], list[PairRow]]:
    """The pairs of this iteration that are trained on, and those of earlier ones.

    Raises:
        DataError: no pair is left.
        InputError: a pair asks the question of a sealed anchor.
    """
    fresh = [row for row in rows if row.dropped is None]
    if not fresh:
        raise DataError(nothing_left(rows, inputs.settings.pairs), reason=reasons.NO_PAIRS)
    again = replayed(fresh, earlier, inputs.settings.replay, derive_seed(inputs.seed, "replay"))
    refuse_anchors([*fresh, *again], anchors)
    return fresh, again


def replayed(fresh: Sequence[PairRow], pool: Sequence[PairRow], share: float, seed: int) -> list[PairRow]:
    """Pairs of ``pool`` that make ``share`` of a training with ``fresh``; all there are when there are fewer."""
    count = min(round(len(fresh) * share / (1 - share)), len(pool))
    return [row.model_copy(update={"replayed": True}) for row in random.Random(seed).sample(list(pool), count)]


def refuse_anchors(pairs: Iterable[PairRow], anchors: Anchors) -> None:
    """Raises InputError when one of ``pairs`` asks the question of a sealed anchor."""
    sealed = {normalise_question(anchor.question) for anchor in anchors.sealed}
    for pair in pairs:
        if normalise_question(pair.question) in sealed:
            raise InputError(
                f"{FIELD} has the question {pair.question[:80]!r}, of which a pair to train on is made, so that it is "
                "not sealed; remove that anchor, or start a new run whose rollouts know it"
            )


def nothing_left(rows: Sequence[PairRow], makers: Sequence[str]) -> str:
    """What to say when no pair is left."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[f"{row.maker}: {row.dropped}"] = counts.get(f"{row.maker}: {row.dropped}", 0) + 1
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "none was made"
    return (
        f"no pair is left to train the judge on ({why}), made by spec.verifier.pairs {', '.join(makers)}; widen "
        "spec.verifier.gate, add makers, or raise spec.rollout.questions"
    )


def anchor_metrics(data: Comparison | None, own: Comparison | None) -> dict[str, float]:
    """Accuracies on the sealed anchors, and on those of the Solver's own answers."""
    found: dict[str, float] = {}
    for comparison, names in (
        (data, ("anchors/count", BEFORE, AFTER, ERROR)),
        (own, ("anchors/own_count", "anchors/own_before", "anchors/own_after", "anchors/own_error")),
    ):
        if comparison is not None:
            values = (comparison.count, comparison.before, comparison.after, comparison.error)
            found |= {name: float(value) for name, value in zip(names, values, strict=True) if value is not None}
    return found


def length_metrics(found: Lengths) -> dict[str, float]:
    """How scores on the anchors follow lengths, where that is known."""
    values = {LENGTH_BEFORE: found.before, LENGTH_AFTER: found.after}
    return {name: value for name, value in values.items() if value is not None}


def pair_metrics(rows: Sequence[PairRow], worth: Mapping[str, Measured]) -> dict[str, float]:
    """What each maker made, what of it was kept, and what it is worth."""
    found: dict[str, float] = {}
    for maker, its in worth.items():
        mine = [row for row in rows if row.maker == maker]
        found |= {
            f"pairs/{maker}/made": float(len(mine)),
            f"pairs/{maker}/kept": float(sum(row.dropped is None for row in mine)),
            f"pairs/{maker}/used": float(its.used),
            f"pairs/{maker}/errors": float(its.errors),
        }
        if its.share is not None:
            found[f"pairs/{maker}/right_in_errors"] = its.share
    return found


def commit(
    context: Context,
    files: Mapping[str, Path],
    stays: Verdict | None,
    tables: Mapping[str, Path],
    history: Sequence[UpdateRow],
    metrics: Mapping[str, float],
) -> PhaseResult:
    """Commit the new judge, or, where the one before ``stays``, its name."""
    verdict = stays and stays.model_copy(update={"promoted": False})
    if verdict is None:
        own = StepModelRef(phase=context.config.inputs.phase, key=context.config.key)
        named = digest({name: file_digest(file) for name, file in files.items()})
        verdict = Verdict(promoted=True, holder=own, digest=named)
    if verdict.promoted and is_by_chance(metrics.get(AFTER), metrics.get("anchors/count")):
        log.warning("%.1f %% of the sealed anchors right is %s; %s", 100 * metrics[AFTER], CHANCE, CHANCE_REMEDY)
    path = context.workdir / JUDGE_FILE
    path.write_text(verdict.model_dump_json(by_alias=True) + "\n")
    out = {**tables, JUDGE_FILE: path}
    if history:
        out[METRICS.name] = write_rows(context.workdir / METRICS.name, history)
    if verdict.promoted:
        out |= {f"model/{name}": file for name, file in files.items()}
    committed = context.commit(context.config.prefix, out, {**metrics, **summary(history, SUMMARY)})
    with contextlib.suppress(SelfevoError):  # who finds the output clears them, too
        checkpoints.clear(context)
    return context.result("committed" if committed.won else "found", committed.manifest.metrics)
