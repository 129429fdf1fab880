"""An evaluation in shards and chunks has the answers and scores of one alone, however often it is killed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.inprocess import Phases
from harness.tiny import HELDOUT, settings
from runs import arithmetic
from selfevo_contract.artifacts import ANSWER_CHUNKS, chunk_prefix, committed_chunks
from selfevo_contract.spec.evaluation import Task
from selfevo_store import read_manifest
from selfevo_trainer.phases.evaluate import Asked, numbers_of, parts_of

BASE, TRAIN, STEP = "evaluate-0", "solver-train-1", "evaluate-1"
QUESTIONS = {"one": 7, "two": 5}
"""Of each task; shards and chunks are cut at other places."""
ALL = sum(QUESTIONS.values())


def make(folder: Path, shards: int = 1, chunk: int = 4, own: int | None = None, **storage: str) -> Phases:
    """The demo's run with two tasks of different samples and answers, the second with ``own`` shards, over the store in
    ``folder``."""
    folder.mkdir(exist_ok=True)
    lines = HELDOUT.read_text().splitlines(keepends=True)
    tasks = []
    for name, count in QUESTIONS.items():
        file = folder.parent / f"{name}.jsonl"
        if not file.exists():
            file.write_text("".join(lines[:count] if name == "one" else lines[-count:]))
        tasks.append({"name": name, "data": {"uri": f"file://{file}"}})
    tasks[1] |= {"answers": "number", "samples": 2, "sampling": {"temperature": 0.7, "maxCompletionLength": 24}}
    tasks[1] |= {"shards": own}
    over = {
        "challenger": {"grpo": {"maxSteps": 0}},
        "evaluation": {"tasks": tasks, "samples": 3, "shards": shards, "chunkQuestions": chunk},
        "storage": storage,
    }
    return Phases(arithmetic(settings(over), store=folder / "store"), folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Phases:
    """A run whose evaluations were made by one process each, in a chunk a task."""
    phases = make(tmp_path_factory.mktemp("runs") / "undisturbed", chunk=ALL)
    for name in (BASE, "solver-rollout-1", TRAIN, STEP):
        for shard in range(phases.step(name).shards):
            ended = phases(name, shard)
            assert ended.code == 0, ended.log
    assert len(phases.committed(STEP).files) == 4
    return phases


@pytest.fixture
def again(undisturbed: Phases, tmp_path: Path) -> Callable[..., Phases]:
    """The same run, with everything but its last evaluation in a store of its own, cut in another way."""
    folder = undisturbed.folder.parent / tmp_path.name

    def cut(shards: int, chunk: int, own: int | None = None, **storage: str) -> Phases:
        if not folder.exists():
            shutil.copytree(undisturbed.folder / "store", folder / "store")
            phases = make(folder, shards, chunk)
            phases.store.delete_prefix(phases.prefix(STEP))
        phases = make(folder, shards, chunk, own, **storage)
        assert phases.step(STEP).key == undisturbed.step(STEP).key, "no part of the key"
        return phases

    return cut


def assert_same(phases: Phases, other: Phases) -> None:
    for file in other.committed(STEP).files:
        assert phases.read(STEP, file.name) == other.read(STEP, file.name), file.name
    assert phases.committed(STEP).metrics == other.committed(STEP).metrics
    assert {"mean", "maj", "greedy", "one/pass@2", "two/pass@2", "mean_gain", "mean_gain_stderr"} <= set(
        phases.committed(STEP).metrics
    )


def chunks(phases: Phases) -> list[range]:
    keys = (info.key for info in phases.store.list(phases.prefix(STEP)))
    return committed_chunks(phases.prefix(STEP), ANSWER_CHUNKS, keys)


def test_a_chunk_is_of_one_task() -> None:
    task = Task.model_validate({"name": "a", "data": {"uri": "file:a"}})
    asked = [Asked(task, [None] * 5, 0), Asked(task, [None] * 3, 5)]  # type: ignore[list-item]
    parts = [numbers for _, numbers in parts_of(asked, [1, 2, 3, 4, 5, 6], 3)]
    assert parts == [range(1, 4), range(4, 5), range(5, 7)]


def test_a_task_with_shards_of_its_own_has_the_first_and_the_others_share_the_rest() -> None:
    def shares(counts: list[int], own: list[int | None], shards: int) -> list[list[int]]:
        asked: list[Asked] = []
        for number, (count, each) in enumerate(zip(counts, own, strict=True)):
            task = Task.model_validate({"name": f"t{number}", "data": {"uri": "file:a"}, "shards": each})
            asked.append(Asked(task, [None] * count, asked[-1].numbers.stop if asked else 0))  # type: ignore[list-item]
        return [list(numbers_of(asked, shards, shard)) for shard in range(shards)]

    assert shares([3, 2], [None, None], 2) == [[0, 1, 2], [3, 4]]
    assert shares([2, 3, 2], [None, 2, None], 4) == [[2, 3], [4], [0, 1], [5, 6]]
    assert shares([1, 2], [2, 1], 3) == [[0], [], [1, 2]]


@pytest.mark.slow
@pytest.mark.parametrize("shards, chunk, own", [(1, 2, None), (4, 2, None), (1, 64, 2), (20, 1, None)])
def test_any_cut_gives_the_same_answers_and_scores(
    undisturbed: Phases, again: Callable[..., Phases], shards: int, chunk: int, own: int | None
) -> None:
    phases = again(shards, chunk, own)
    shards = phases.step(STEP).shards
    assert shards == (3 if own else shards)
    outcomes = [phases(STEP, shard).result.outcome for shard in range(shards)]
    whole = min(shards, ALL) - 1  # with more shards than questions the last ones find it done
    assert outcomes == ["shard"] * whole + ["committed"] + ["found"] * (shards - 1 - whole)
    assert_same(phases, undisturbed)


@pytest.mark.slow
def test_a_shard_without_a_question_waits_for_nobody(again: Callable[..., Phases]) -> None:
    phases = again(ALL + 1, 1)
    ended = phases(STEP, ALL)
    assert (ended.code, ended.result.outcome, chunks(phases)) == (0, "shard", []), ended.log


@pytest.mark.slow
@pytest.mark.parametrize("shards", [(1,), (4,), (1, 4, 3)], ids=["one shard", "four", "another number each time"])
def test_an_evaluation_killed_again_and_again_ends_with_the_same_bytes(
    undisturbed: Phases, again: Callable[..., Phases], killed_until_done: Any, shards: tuple[int, ...]
) -> None:
    phases, asked = killed_until_done(
        lambda count: again(count, 1), STEP, shards, chunks, kills=12, calls=4, attempts=40
    )
    assert_same(phases, undisturbed)
    # The greedy answer and the samples of each question, and nothing of a chunk that was committed twice.
    least = QUESTIONS["one"] * 4 + QUESTIONS["two"] * 3
    assert least <= asked <= least + 12 * 4


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, -1], ids=["scores", "texts"])
def test_a_damaged_chunk_is_made_again_by_whoever_sees_it(
    undisturbed: Phases, again: Callable[..., Phases], which: int
) -> None:
    phases = again(2, 64)
    assert phases(STEP, 0).result.outcome == "shard"
    place = chunk_prefix(phases.prefix(STEP), ANSWER_CHUNKS, range(ALL // 2))
    manifest = read_manifest(phases.store, place)
    assert manifest is not None and len(manifest.files) == 2
    phases.store.put_bytes(f"{place}/{manifest.files[which].path}", b"flipped")
    ended = phases(STEP, 1)
    assert (ended.code, ended.result.outcome) == (0, "committed"), ended.log
    assert f"the {ANSWER_CHUNKS} 0 to {ALL // 2 - 1} are passed over and made again" in ended.log
    assert_same(phases, undisturbed)


@pytest.mark.slow
def test_texts_are_kept_only_where_that_is_asked_for(undisturbed: Phases, again: Callable[..., Phases]) -> None:
    phases = again(2, 2, keepAnswers="votes")
    assert [phases(STEP, shard).code for shard in (0, 1)] == [0, 0]
    names = {file.name for file in phases.committed(STEP).files}
    assert names == {"answers/one.parquet", "answers/two.parquet"}
    assert all(phases.read(STEP, name) == undisturbed.read(STEP, name) for name in names)


@pytest.mark.slow
def test_data_that_changes_between_two_shards_is_no_evaluation(again: Callable[..., Phases]) -> None:
    phases = again(2, 64)
    assert phases(STEP, 0).result.outcome == "shard"
    file = phases.folder.parent / "one.jsonl"
    before = file.read_text()
    try:
        file.write_text(before.replace('question": "', 'question": "Now: ', 1))
        ended = phases(STEP, 1)
    finally:
        file.write_text(before)
    assert (ended.code, ended.result.reason) == (2, "InvalidInput"), ended.log
    assert ended.result.message == (
        f"task 'one' has the data 'file://{file}', whose row 1 changed after a part of the evaluation had answered it; "
        "put the file back, or give the new one another address"
    )
    assert phases(STEP, 1).result.outcome == "committed"


@pytest.mark.slow
def test_progress_is_reported_after_each_chunk(again: Callable[..., Phases]) -> None:
    ended = again(2, 2)(STEP, 1)
    mine = [(line.doing, line.done, line.total, line.shard) for line in ended.progress]
    # Of twelve questions the last six: one of the first task, of 1 + 3 answers, and five of the second, of 1 + 2.
    assert list(dict.fromkeys(each for each in mine if each[1])) == [
        ("answering one", 4, 19, 1),
        ("answering two", 4, 19, 1),
        ("answering two", 10, 19, 1),
        ("answering two", 16, 19, 1),
        ("answering two", 19, 19, 1),
    ]
    assert (ended.progress[-1].tokens_per_second or 0) > 0
