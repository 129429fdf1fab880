"""A rollout that is killed again and again ends with the same bytes, and loses one chunk a kill at most."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.inprocess import Ended, Phases, sigterm
from harness.tiny import settings
from runs import arithmetic
from selfevo_contract.artifacts import ANSWER_CHUNKS, GPU_SECONDS, QUESTION_CHUNKS, chunk_prefix, committed_chunks
from selfevo_contract.rows import CURRICULUM, TEXTS
from selfevo_contract.rows import QUESTIONS as QUESTION_ROWS
from selfevo_store import read_manifest
from selfevo_trainer.chunks import cut, share_of
from selfevo_trainer.process import gpus

STEP = "solver-rollout-1"
FILES = (QUESTION_ROWS.name, CURRICULUM.name, TEXTS.name)
QUESTIONS = 24
OVER: dict[str, Any] = {
    "challenger": {"grpo": {"maxSteps": 0}},
    "rollout": {"questions": QUESTIONS, "samples": 3, "band": {"min": 0.1, "max": 1.0}, "shards": 1},
    "evaluation": None,
}


def make(folder: Path, shards: int = 1, chunk: int = 4) -> Phases:
    """The demo's base as Challenger and Solver, over the store in ``folder``."""
    over = {**OVER, "rollout": {**OVER["rollout"], "shards": shards, "chunkQuestions": chunk}}
    return Phases(arithmetic(settings(over), store=folder / "store"), folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What a rollout writes when nothing happens to it, in one chunk."""
    phases = make(tmp_path_factory.mktemp("undisturbed"), chunk=QUESTIONS)
    ended = phases(STEP)
    assert (ended.code, ended.result.outcome) == (0, "committed"), ended.log
    return files_of(phases)


def files_of(phases: Phases) -> list[bytes]:
    return [phases.read(STEP, file) for file in FILES]


def chunks(phases: Phases, kind: str = ANSWER_CHUNKS) -> list[range]:
    keys = (info.key for info in phases.store.list(phases.prefix(STEP)))
    return committed_chunks(phases.prefix(STEP), kind, keys)


def numbers(of: list[range]) -> list[int]:
    return sorted({number for chunk in of for number in chunk})


# ---- cutting


def test_shards_share_the_questions() -> None:
    for total, shards in ((24, 4), (7, 3), (3, 3), (10, 1)):
        shares = [share_of(total, shards, shard) for shard in range(shards)]
        assert [number for share in shares for number in share] == list(range(total))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_chunks_have_no_gap_and_are_no_longer_than_asked() -> None:
    some = [0, 1, 2, 3, 4, 7, 9, 10]
    assert list(cut(some, 2)) == [range(2), range(2, 4), range(4, 5), range(7, 8), range(9, 11)]
    assert list(cut(some, None)) == [range(5), range(7, 8), range(9, 11)]
    assert list(cut([], 3)) == []


def test_a_chunk_is_known_by_its_place() -> None:
    places = [chunk_prefix("ns/p/key", kind, range(4, 7)) for kind in (QUESTION_CHUNKS, ANSWER_CHUNKS)]
    assert places == ["ns/p/key/chunks/questions/00000004-00000003", "ns/p/key/chunks/answers/00000004-00000003"]
    keys = [f"{place}/{name}" for place in places for name in ("MANIFEST.json", "attempts/x/MANIFEST.json")]
    assert committed_chunks("ns/p/key", ANSWER_CHUNKS, keys) == [range(4, 7)]
    assert committed_chunks("ns/p/other", ANSWER_CHUNKS, keys) == []


# ---- killed


@pytest.mark.slow
@pytest.mark.parametrize("shards", [(1,), (4,), (1, 4, 2, 3)], ids=["one shard", "four", "another number each time"])
def test_a_rollout_killed_twenty_times_ends_with_the_same_bytes(
    tmp_path: Path, undisturbed: list[bytes], killed_until_done: Any, shards: tuple[int, ...]
) -> None:
    phases, asked = killed_until_done(
        lambda count: make(tmp_path, count, chunk=1),
        STEP,
        shards,
        lambda phases: numbers(chunks(phases)),
        kills=20,
        calls=3,
        attempts=50,
    )
    assert files_of(phases) == undisturbed
    # One completion a question by the Challenger, three a valid one by the Solver: nothing was generated twice.
    valid = sum(row["question"] is not None for row in phases.rows(STEP, QUESTION_ROWS))
    assert asked == QUESTIONS + 3 * valid


HANGING = """
import os, sys, time
from selfevo_trainer.engines.transformers_engine import TransformersEngine
from selfevo_trainer.main import main
real, calls = TransformersEngine.generate, []
def generate(*args):
    calls.append(1)
    if len(calls) == int(os.environ["HANGS_AT"]):
        print("hanging", flush=True)
        time.sleep(600)
    return real(*args)
TransformersEngine.generate = generate
sys.exit(main())
"""


@pytest.mark.slow
def test_processes_that_are_killed_for_real_lose_a_chunk_at_most(tmp_path: Path, undisturbed: list[bytes]) -> None:
    phases = make(tmp_path, 2, chunk=2)
    # Of twelve questions: two chunks of the Challenger, one of answers, and it hangs; then one of answers.
    for number, hangs_at, committed in ((signal.SIGKILL, 4, 1), (signal.SIGTERM, 2, 2)):
        environment = {**os.environ, **phases.environment(STEP, 0), "HANGS_AT": str(hangs_at)}
        process = subprocess.Popen(
            [sys.executable, "-c", HANGING], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line == b"hanging\n":
                break
        process.send_signal(number)
        _, log = process.communicate(timeout=120)
        assert process.returncode == (143 if number == signal.SIGTERM else -number), log
        assert len(chunks(phases)) == committed, log
        assert phases.manifest(STEP) is None
    kept = numbers(chunks(phases))
    other = make(tmp_path, 3, chunk=5)
    assert [other(STEP, shard).result.outcome for shard in range(3)] == ["shard", "shard", "committed"]
    assert files_of(other) == undisturbed
    assert set(kept) == set(numbers(chunks(other)[: len(kept) // 2])), (
        "the chunks of the killed are read, not made anew"
    )


@pytest.mark.slow
def test_sigterm_while_a_chunk_is_committed_keeps_the_chunk(
    tmp_path: Path, undisturbed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfevo_store.file import FileStore

    phases = make(tmp_path, chunk=6)
    upload = FileStore.upload_file

    def stopped(self: FileStore, path: Path, key: str) -> Any:
        if "/chunks/answers/" in key:
            sigterm()
        return upload(self, path, key)

    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "upload_file", stopped)
        for committed in (1, 2):
            ended = phases(STEP)
            assert (ended.code, ended.result.outcome, ended.result.reason) == (143, "terminated", "Terminated")
            assert "behind the chunks that are committed" in ended.result.message
            assert len(chunks(phases)) == committed
    assert phases(STEP).result.outcome == "committed"
    assert files_of(phases) == undisturbed


# ---- damaged, another's, two at once


def damage_rows(phases: Phases, kind: str, chunk: range) -> None:
    place = chunk_prefix(phases.prefix(STEP), kind, chunk)
    manifest = read_manifest(phases.store, place)
    assert manifest is not None
    phases.store.put_bytes(f"{place}/{manifest.files[0].path}", b"flipped")


def damage_texts(phases: Phases, kind: str, chunk: range) -> None:
    """What is read last of all: of the questions, which have none, the rows."""
    place = chunk_prefix(phases.prefix(STEP), kind, chunk)
    manifest = read_manifest(phases.store, place)
    assert manifest is not None
    phases.store.put_bytes(f"{place}/{manifest.files[-1].path}", b"flipped")


def damage_manifest(phases: Phases, kind: str, chunk: range) -> None:
    phases.store.put_bytes(f"{chunk_prefix(phases.prefix(STEP), kind, chunk)}/MANIFEST.json", b"{\x00")


def lose_rows(phases: Phases, kind: str, chunk: range) -> None:
    phases.store.delete_prefix(f"{chunk_prefix(phases.prefix(STEP), kind, chunk)}/attempts")


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [damage_rows, damage_texts, damage_manifest, lose_rows], ids=lambda what: what.__name__
)
@pytest.mark.parametrize("kind", [QUESTION_CHUNKS, ANSWER_CHUNKS])
def test_a_damaged_chunk_is_made_again_by_whoever_sees_it(
    tmp_path: Path, undisturbed: list[bytes], damage: Callable[..., None], kind: str, before_calls: Any
) -> None:
    phases = make(tmp_path, 2, chunk=12)
    assert phases(STEP, 0).result.outcome == "shard"
    damage(phases, kind, range(12))
    asked = before_calls(lambda _: None)
    ended = phases(STEP, 1)  # the other shard
    assert (ended.code, ended.result.outcome) == (0, "committed"), ended.log
    assert f"the {kind} 0 to 11 are passed over and made again" in ended.log
    assert files_of(phases) == undisturbed
    if kind == QUESTION_CHUNKS:  # its answers are there: nobody needs them again
        assert asked[0] == 12 and len(asked) == 2


@pytest.mark.slow
def test_a_chunk_of_another_key_ends_the_phase_and_stays(tmp_path: Path) -> None:
    phases = make(tmp_path, 2, chunk=12)
    assert phases(STEP, 0).code == 0
    place = chunk_prefix(phases.prefix(STEP), ANSWER_CHUNKS, range(12))
    manifest = read_manifest(phases.store, place)
    assert manifest is not None
    foreign = manifest.model_copy(update={"key": "f" * 64}).model_dump_json(by_alias=True).encode()
    phases.store.put_bytes(f"{place}/MANIFEST.json", foreign)
    for shard in (0, 1):
        ended = phases(STEP, shard)
        assert (ended.code, ended.result.reason) == (2, "ForeignManifest"), ended.log
        assert place in ended.result.message and "ffffffffffff" in ended.result.message
    assert phases.store.read_bytes(f"{place}/MANIFEST.json") == foreign and phases.manifest(STEP) is None


@pytest.mark.slow
def test_a_store_that_damages_every_chunk_is_no_endless_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import selfevo_trainer.chunks
    from selfevo_store import CorruptArtifact

    def damaged(store: Any, prefix: str, *_: Any) -> Any:
        raise CorruptArtifact(f"{prefix}: file 'questions.jsonl' is damaged")

    phases = make(tmp_path, chunk=QUESTIONS)
    monkeypatch.setattr(selfevo_trainer.chunks, "fetch_rows", damaged)
    ended = phases(STEP)
    assert ended.code == 3 and "question 0 was committed and is gone" in ended.result.message, ended.log


@pytest.mark.slow
def test_two_processes_that_do_the_same_end_with_one_output(
    tmp_path: Path, undisturbed: list[bytes], before_calls: Any
) -> None:
    """The one is overtaken by the other in the middle of its second chunk of answers, on another cut."""
    overtaken: list[Ended] = []
    ours = make(tmp_path, 1, chunk=6)
    other = make(tmp_path, 2, chunk=4)
    calls = 0

    def overtake(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:  # two chunks of the Challenger, and one of the Solver
            overtaken.append(other(STEP, 0))
            overtaken.append(other(STEP, 1))

    before_calls(overtake)
    ended = ours(STEP)
    assert [each.result.outcome for each in overtaken] == ["shard", "committed"], overtaken[-1].log
    assert (ended.code, ended.result.outcome) == (0, "found"), ended.log
    assert files_of(ours) == undisturbed
    assert len(chunks(ours)) > len(set(numbers(chunks(ours)))) // 6  # they do overlap


# ---- what is reported


@pytest.mark.slow
def test_progress_is_reported_after_each_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "seen", lambda processes: 2)
    phases = make(tmp_path, chunk=4)
    ended = phases(STEP)
    reports = [line for line in ended.progress if line.doing == "answering"]
    assert [line.done for line in reports] == [24, 36, 48, 60, 72, 84, 96]
    assert {line.total for line in reports} == {96}
    for line in reports[1:]:
        assert line.tokens_per_second is not None and line.tokens_per_second > 0
        assert line.truncated_share is not None and 0 <= line.truncated_share <= 1
    assert reports[-1].seconds_left == 0 < (reports[1].seconds_left or 0)
    # The manifest's seconds are those of all chunks; each process counts once.
    seconds = phases.committed(STEP).timings
    assert seconds["generation"] == pytest.approx(ended.result.timings["generation"], abs=0.05)
    assert 0 < seconds["total"] <= ended.result.timings["total"] + 0.05
    assert seconds[GPU_SECONDS] == pytest.approx(2 * seconds["total"], abs=0.1)
