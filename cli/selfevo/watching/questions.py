"""The newest questions of a run's newest rollout, from its store: of the whole rollout, or of the newest chunk of one
that goes on."""

from __future__ import annotations

from collections.abc import Sequence

from selfevo.report.reading import own_manifest, prefix_of, read_rows
from selfevo.stores import open_run_store
from selfevo.text import count
from selfevo.watching.scene import Asked, Questions
from selfevo.watching.source import Source, sentence_of
from selfevo_contract.artifacts import ANSWER_CHUNKS, chunk_prefix, chunks_prefix, committed_chunks
from selfevo_contract.errors import SelfevoError
from selfevo_contract.phases import SolverRolloutInputs
from selfevo_contract.plan import Step
from selfevo_contract.rows import ANSWERED, QUESTIONS, CheckedQuestion, InvalidCompletion, Question
from selfevo_contract.run import SelfEvolutionRun
from selfevo_store import ObjectStore

POLL_S = 5.0
RETRY_S = 30.0
"""After a store did not let itself be read."""
SHOWN = 40


class Reader:
    """Reads what is new; what was read once is not read again."""

    def __init__(self, run: SelfEvolutionRun) -> None:
        self._namespace = run.metadata.namespace
        self._store: ObjectStore = open_run_store(run)
        self._known: tuple[str, Questions] = ("", Questions())

    def newest(self, rollouts: Sequence[Step]) -> Questions:
        """Of the last of ``rollouts`` that has any.

        Raises:
            SelfevoError: the store failed, or what it has is damaged.
        """
        for step in reversed(rollouts):
            prefix = prefix_of(self._namespace, step)
            place, chunk = prefix, None
            manifest = own_manifest(self._store, prefix, step)
            if manifest is None:
                there = (info.key for info in self._store.list(chunks_prefix(prefix, ANSWER_CHUNKS)))
                chunks = committed_chunks(prefix, ANSWER_CHUNKS, there)
                if not chunks:
                    continue
                chunk = chunks[-1]
                place = chunk_prefix(prefix, ANSWER_CHUNKS, chunk)
                if place == self._known[0]:
                    return self._known[1]
                manifest = own_manifest(self._store, place, step)
                if manifest is None:
                    continue
            if place != self._known[0]:
                if chunk is None:
                    whole = read_rows(self._store, place, manifest, QUESTIONS)
                    found = shown(step, whole, None)
                else:
                    part = read_rows(self._store, place, manifest, ANSWERED)
                    found = shown(step, part, chunk)
                self._known = place, found
            return self._known[1]
        return Questions()


def shown(step: Step, rows: Sequence[Question | InvalidCompletion], chunk: range | None) -> Questions:
    """The last rows, the newest first, and what they are of. Pure."""
    valid = [row for row in rows if isinstance(row, Question)]
    invalid = sum(isinstance(row, InvalidCompletion) for row in rows)
    if chunk is None:
        kept = sum(getattr(row, "dropped", None) is None for row in valid)
        of = f"{kept} of {count(len(valid), 'question')} passed"
    else:
        of = f"{chunk.start + 1} to {chunk.stop}, as they are answered"
    of += f", {invalid} invalid" if invalid else ""
    return Questions(f"questions of {step.name}: {of}", [_asked(row) for row in reversed(valid[-SHOWN:])])


def _asked(row: Question) -> Asked:
    dropped = (row.dropped or "") if isinstance(row, CheckedQuestion) else ""
    votes = sorted((number for _, number in row.votes), reverse=True)
    return Asked(row.question[:1000], row.share, votes, dropped)


def poll(source: Source, run: SelfEvolutionRun) -> None:
    """Thread: keeps ``source`` supplied. A store that this machine may not read is no reason to end."""
    reader: Reader | None = None
    while not source.closed.is_set():
        pause = POLL_S
        plan = source.scene.plan
        rollouts = [step for step in plan.steps if isinstance(step.inputs, SolverRolloutInputs)] if plan else []
        try:
            reader = reader or Reader(run)
            found = reader.newest(rollouts)
        except SelfevoError as error:
            found, pause = Questions(why=sentence_of(error)), RETRY_S
        if found != source.scene.questions:
            source.update(questions=found)
        source.closed.wait(pause)
