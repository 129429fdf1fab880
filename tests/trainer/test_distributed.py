"""Training in several processes, with gloo on the CPU: what one process computes, and how it is stopped and broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.curricula import give_curriculum
from harness.inprocess import Phases
from harness.pods import Happening, Pod, Script, gone
from harness.ports import free_port
from harness.processes import alive
from harness.tiny import settings, write_questions
from runs import arithmetic
from selfevo_contract.artifacts import COMPLETIONS, GENERATED, GENERATING, checkpoint_prefix
from selfevo_store import read_manifest

pytestmark = pytest.mark.slow

# Groups of 8 over halves of 12 rows: one group's completions lie in two processes. A step has three updates of 8 rows.
GRPO: dict[str, Any] = {
    "maxSteps": 5,
    "promptsPerStep": 3,
    "promptsPerUpdate": 1,
    "numGenerations": 8,
    "perDeviceTrainBatchSize": 4,
    "generationBatchTokens": 200,  # the 12 completions of a process in several parts
}
RUN: dict[str, Any] = {"solver": {"grpo": GRPO, "checkpointEvery": 2}, "challenger": {"grpo": {**GRPO, "maxSteps": 3}}}
IN_STEP_3 = 8
"""Of a process's parts, of which a step has three."""
TRAIN, CHALLENGER = "solver-train-1", "challenger-train-1"

Digests = dict[str, str]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("questions") / "heldout.jsonl", 4)


@pytest.fixture(scope="module")
def make(questions: Path) -> Callable[..., Phases]:
    def phases(folder: Path, over: dict[str, Any] = RUN) -> Phases:
        made = Phases(arithmetic(settings(over, questions=questions), store=folder / "store"), folder)
        give_curriculum(made)
        return made

    return phases


@pytest.fixture(scope="module")
def undisturbed(make: Callable[..., Phases], tmp_path_factory: pytest.TempPathFactory) -> Digests:
    """What two processes write when nothing happens to them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    phases = make(folder)
    ended = Pod(phases, TRAIN, folder / "pod").ended()
    assert (ended.code, ended.result.outcome, ended.result.resumed_from) == (0, "committed", None), ended.log
    return phases.digests(TRAIN)


def weights(phases: Phases, name: str) -> dict[str, Any]:
    from safetensors.numpy import load

    return dict(load(phases.read(name, "model/model.safetensors")))


def rows(phases: Phases, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in phases.read(name, "metrics.jsonl").splitlines()]


def both_pods(phases: Phases, folder: Path, script: Script = Script()) -> list[Pod]:  # noqa: B008
    port = free_port("")
    return [
        Pod(phases, TRAIN, folder / f"pod-{node}", processes=1, nodes=2, node=node, port=port, script=script)
        for node in (0, 1)
    ]


@pytest.mark.parametrize("name", [TRAIN, CHALLENGER])
def test_two_processes_train_what_one_trains(make: Callable[..., Phases], tmp_path: Path, name: str) -> None:
    import numpy

    recorded: dict[int, list[dict[str, list[Any]]]] = {}
    phases: dict[int, Phases] = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        phases[processes] = make(folder)
        pod = Pod(phases[processes], name, folder, processes=processes, script=Script(record=str(folder), exact=True))
        ended = pod.ended()
        assert (ended.code, ended.result.outcome) == (0, "committed"), ended.log
        of_rank = [
            [json.loads(line) for line in (folder / f"{rank}.jsonl").read_text().splitlines()]
            for rank in range(processes)
        ]
        recorded[processes] = [
            {field: [item for part in parts for item in part[field]] for field in ("completions", "rewards")}
            for parts in zip(*of_rank, strict=True)
        ]
        # One step consumes exactly the completions of a step, over all processes.
        steps = phases[processes].config(name).inputs.grpo.max_steps  # type: ignore[union-attr]
        assert [len(batch["completions"]) for batch in recorded[processes]] == [24] * steps
        assert [(row["step"], row["update"]) for row in rows(phases[processes], name)] == [
            (1 + update // 3, 1 + update) for update in range(3 * steps)
        ]

    if name == CHALLENGER:  # all questions are answered once, and each process answers as many as the other
        alone, first, second = (
            [json.loads(line) for line in (tmp_path / file).read_text().splitlines()]
            for file in ("1/asked-0.jsonl", "2/asked-0.jsonl", "2/asked-1.jsonl")
        )
        for all_of_it, mine, others in zip(alone, first, second, strict=True):
            assert sorted(mine + others) == all_of_it and 0 <= len(mine) - len(others) <= 1
    for one, two in zip(recorded[1], recorded[2], strict=True):
        assert one["completions"] == two["completions"]
        assert one["rewards"] == pytest.approx(two["rewards"], abs=1e-9)
    assert len({reward for batch in recorded[1] for reward in batch["rewards"]}) > 1  # there is something to learn

    before = weights_of_base()
    one, two = (weights(phases[processes], name) for processes in (1, 2))
    moved = max(float(numpy.abs(one[tensor] - before[tensor]).max()) for tensor in one)
    apart = max(float(numpy.abs(one[tensor] - two[tensor]).max()) for tensor in one)
    assert moved > 1e-4 and apart < 0.02 * moved
    # Not kl and entropy: TRL logs them as means over the tokens of each pass, and passes are composed otherwise.
    of_update = ("grad_norm", "loss")
    of_step = ("reward", "completions/mean_length")
    of_step += ("accuracy",) if name == TRAIN else ("valid", "distinct", "repetition", "uncertainty", "majority_share")
    for first, second in zip(rows(phases[1], name), rows(phases[2], name), strict=True):
        for figure in (*of_update, *(of_step if first["update"] % 3 == 1 else ())):
            assert first[figure] == pytest.approx(second[figure], rel=1e-3, abs=1e-5), figure


def weights_of_base() -> dict[str, Any]:
    from safetensors.numpy import load_file

    from harness.tiny import BASE

    return dict(load_file(BASE / "model.safetensors"))


def test_the_first_process_commits_and_reports_once(make: Callable[..., Phases], tmp_path: Path) -> None:
    phases = make(tmp_path)
    pod = Pod(phases, CHALLENGER, tmp_path / "pod")  # with the frozen Solver's own answers
    ended = pod.ended()
    assert (ended.code, ended.result.outcome, ended.result.exit_code) == (0, "committed", 0), ended.log
    assert {"reward_last", "valid_last", "repetition_last"} <= set(ended.result.metrics)
    done = [line.done for line in ended.progress]
    assert done == sorted(done) and set(done) == {0, 1, 2, 3}
    objects = phases.objects(CHALLENGER)
    assert (
        objects.count("MANIFEST.json") == 1 and len({key.split("/")[1] for key in objects if "attempts/" in key}) == 1
    )
    assert phases.objects(CHALLENGER, "checkpoints") == []
    assert list((tmp_path / "pod" / "work").iterdir()) == []
    assert len(pod.members()) == 2 and gone(pod.members())

    again = Pod(phases, CHALLENGER, tmp_path / "again")
    assert again.ended().result.outcome == "found" and again.members() == []


@pytest.mark.parametrize(
    ("what", "rank", "expected"),
    [
        ("data", 1, (4, "WentBad", "the data of process 1 went bad; look at it")),
        ("input", 0, (2, "InvalidInput", "spec.x is 'y'; write z")),
        ("crash", 1, (3, "Crashed", "OSError: the node lost its memory")),
        ("kill", 1, (3, "ProcessLost", "process 1 of 2 was killed by SIGKILL")),
        ("kill", 0, (3, "ProcessLost", "process 0 of 2 was killed by SIGKILL")),
    ],
)
def test_one_process_fails_and_the_pod_says_why_and_goes_on_next_time(
    make: Callable[..., Phases],
    undisturbed: Digests,
    tmp_path: Path,
    what: str,
    rank: int,
    expected: tuple[int, str, str],
) -> None:
    phases = make(tmp_path)
    newest = tmp_path / "store" / checkpoint_prefix(phases.prefix(TRAIN), 6) / "MANIFEST.json"
    pod = Pod(phases, TRAIN, tmp_path / "pod", script=Script(Happening(what, rank, batch=4, once=str(newest))))
    ended = pod.ended()
    code, reason, message = expected
    assert (ended.code, ended.result.exit_code, ended.result.reason) == (code, code, reason), ended.log
    assert message in ended.result.message and ended.log.rstrip().endswith(f"{TRAIN[:-2]}: {ended.result.message}")
    assert gone(pod.members()) and phases.manifest(TRAIN) is None
    assert list((tmp_path / "pod" / "work").iterdir()) == []
    # What went bad is not to be gone on from.
    assert phases.checkpoints(TRAIN) == ([] if code == 4 else [6])
    if what == "kill" and rank == 1:
        again = Pod(phases, TRAIN, tmp_path / "again").ended()
        assert (again.code, again.result.resumed_from) == (0, 2), again.log
        assert phases.digests(TRAIN) == undisturbed


@pytest.mark.parametrize(
    "happening",
    [Happening("sigterm-pod", batch=3), Happening("sigterm", part=IN_STEP_3)],
    ids=["the pod", "one process while it generates"],
)
def test_sigterm_stops_all_after_the_same_step_and_the_next_attempt_ends_with_the_same_bytes(
    make: Callable[..., Phases], undisturbed: Digests, tmp_path: Path, happening: Happening
) -> None:
    phases = make(tmp_path)
    pod = Pod(phases, TRAIN, tmp_path / "pod", script=Script(happening))
    ended = pod.ended()
    assert (ended.code, ended.result.outcome, ended.result.reason) == (143, "terminated", "Terminated"), ended.log
    update = max(phases.checkpoints(TRAIN))
    step, within = divmod(update, 3)
    # The pod's signal takes its way: an update of the step in which it was sent, or of the next one.
    assert 7 <= update <= 12 if happening.part is None else update == 6
    generating, generated = (
        phases.objects(TRAIN, f"checkpoints/{update:08d}/{place}") for place in (GENERATING, GENERATED)
    )
    assert generating or happening.part is None
    where = f"in step {step + 1} of 5" if within or generating or generated else f"after step {step} of 5"
    assert f"stopped on request {where}; the checkpoint is committed" in ended.result.message
    assert phases.manifest(TRAIN) is None and gone(pod.members()) and "Traceback" not in ended.log

    prefix = checkpoint_prefix(phases.prefix(TRAIN), update)
    if within:
        kept = read_manifest(phases.store, f"{prefix}/{COMPLETIONS}")
        assert kept is not None and kept.file("completions-0.safetensors") and kept.file("completions-1.safetensors")
    manifest = read_manifest(phases.store, prefix)
    assert manifest is not None
    states = {file.name: file.sha256 for file in manifest.files if file.name.startswith("rng_state")}
    assert set(states) == {"rng_state_0.pth", "rng_state_1.pth"} and len(set(states.values())) == 2
    again = Pod(phases, TRAIN, tmp_path / "again").ended()
    assert (again.code, again.result.outcome, again.result.resumed_from) == (0, "committed", step), again.log
    assert phases.digests(TRAIN) == undisturbed and phases.checkpoints(TRAIN) == []


def test_a_checkpoint_that_takes_its_time_is_waited_for_by_all(
    make: Callable[..., Phases], undisturbed: Digests, tmp_path: Path
) -> None:
    """A process that went on to its end would have the first one killed in the middle of the commit."""
    script = Script(Happening("sigterm", rank=1, batch=1), slow_checkpoint_s=3)
    phases = make(tmp_path)
    ended = Pod(phases, TRAIN, tmp_path / "pod", script=script).ended()
    assert (ended.code, ended.result.reason) == (143, "Terminated"), ended.log
    assert phases.checkpoints(TRAIN) == [1]  # in the first step
    again = Pod(phases, TRAIN, tmp_path / "again").ended()
    assert (again.code, again.result.resumed_from) == (0, 0), again.log
    assert phases.digests(TRAIN) == undisturbed


def test_a_damaged_checkpoint_is_passed_over_by_all(
    make: Callable[..., Phases], undisturbed: Digests, tmp_path: Path
) -> None:
    phases = make(tmp_path, {**RUN, "solver": {**RUN["solver"], "checkpointEvery": 1}})
    Pod(phases, TRAIN, tmp_path / "pod", script=Script(Happening("crash", batch=4))).ended()
    assert phases.checkpoints(TRAIN) == [6, 9]
    prefix = checkpoint_prefix(phases.prefix(TRAIN), 9)
    manifest = read_manifest(phases.store, prefix)
    assert manifest is not None
    file = manifest.file("rng_state_1.pth")
    assert file is not None
    (tmp_path / "store" / prefix / file.path).write_bytes(b"damaged")
    ended = Pod(phases, TRAIN, tmp_path / "again").ended()
    assert (ended.code, ended.result.resumed_from) == (0, 2), ended.log
    assert "the checkpoint of update 9 is passed over" in ended.log
    assert phases.digests(TRAIN) == undisturbed


def test_two_pods_train_what_two_processes_train(
    make: Callable[..., Phases], undisturbed: Digests, tmp_path: Path
) -> None:
    phases = make(tmp_path)
    first, second = (pod.ended() for pod in both_pods(phases, tmp_path))
    assert (first.code, first.result.outcome) == (0, "committed"), first.log
    assert (second.code, second.result) == (0, first.result), second.log
    assert second.progress == []
    assert phases.digests(TRAIN) == undisturbed


def test_a_pod_that_is_stopped_stops_the_other_and_both_go_on(
    make: Callable[..., Phases], undisturbed: Digests, tmp_path: Path
) -> None:
    phases = make(tmp_path)
    first, second = (
        pod.ended() for pod in both_pods(phases, tmp_path, Script(Happening("sigterm-pod", rank=1, batch=3)))
    )
    assert (first.code, second.code) == (143, 143), first.log + second.log
    assert second.result.reason == "Terminated"
    step = max(phases.checkpoints(TRAIN)) // 3
    again = [pod.ended() for pod in both_pods(phases, tmp_path / "again")]
    assert [ended.code for ended in again] == [0, 0], again[0].log + again[1].log
    assert again[0].result.resumed_from == step
    assert phases.digests(TRAIN) == undisturbed


def test_bad_data_in_one_pod_is_the_exit_code_there_and_143_elsewhere(
    make: Callable[..., Phases], tmp_path: Path
) -> None:
    first, second = (pod.ended() for pod in both_pods(make(tmp_path), tmp_path, Script(Happening("data", rank=1))))
    assert (first.code, first.result.reason) == (143, "PeerFailed"), first.log
    assert first.result.message == "pod 1: the data of process 1 went bad; look at it"
    assert (second.code, second.result.reason) == (4, "WentBad"), second.log


def test_a_batch_that_does_not_divide_is_refused_before_any_process_starts(
    make: Callable[..., Phases], tmp_path: Path
) -> None:
    pod = Pod(make(tmp_path), TRAIN, tmp_path / "pod", processes=3)
    ended = pod.ended()
    assert (ended.code, ended.result.reason) == (2, "InvalidInput") and pod.members() == []
    assert "perDeviceTrainBatchSize 4 x 3 processes does not divide the 8 completions" in ended.result.message


def test_the_processes_of_a_pod_end_when_their_launcher_is_killed(make: Callable[..., Phases], tmp_path: Path) -> None:
    pod = Pod(make(tmp_path), TRAIN, tmp_path / "pod", script=Script(Happening("hang", rank=1, batch=3))).until(done=1)
    members = pod.members()
    assert len(members) == 2 and all(alive(pid) for pid in members)
    pod.process.kill()
    assert gone(members)
