"""FSDP2 in two processes, with gloo on the CPU: what one computes, in the same form, from the same checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from harness import exact
from harness.artifacts import KEY, draft, write_files
from harness.curricula import give_curriculum
from harness.inprocess import Ended, Phases
from harness.pods import Happening, Pod, Script, gone
from harness.ports import free_port
from harness.tiny import BASE, settings, write_questions
from runs import arithmetic
from selfevo_contract.artifacts import COMPLETIONS, checkpoint_prefix
from selfevo_contract.fingerprint import FINGERPRINT
from selfevo_store import open_store, read_manifest

pytestmark = pytest.mark.slow

# Two updates a step; a pass of 4 completions, so that gradients of several passes are summed, over both processes.
GRPO: dict[str, Any] = {
    "maxSteps": 3,
    "promptsPerStep": 2,
    "promptsPerUpdate": 1,
    "numGenerations": 8,
    "perDeviceTrainBatchSize": 2,
    "learningRate": 1e-3,
}
TRAIN = "solver-train-1"

Make = Callable[..., Phases]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    questions = write_questions(tmp_path_factory.mktemp("questions") / "heldout.jsonl", 4)

    def phases(folder: Path, **grpo: Any) -> Phases:
        over = {"solver": {"grpo": {**GRPO, **grpo}, "checkpointEvery": 1}}
        made = Phases(arithmetic(settings(over, questions=questions), store=folder / "store"), folder)
        give_curriculum(made)
        return made

    return phases


def whole(phases: Phases, folder: Path, happening: Happening | None = None) -> Ended:
    """An attempt of one process."""
    script = Script(happening, exact=True)
    return Pod(phases, TRAIN, folder, processes=1, script=script).ended()


def sharded(
    phases: Phases,
    folder: Path,
    happening: Happening | None = None,
    broken: Literal["", "loss", "moments"] = "",
) -> Ended:
    """An attempt of two processes."""
    script = Script(happening, exact=True, shards=True, broken=broken)
    return Pod(phases, TRAIN, folder, script=script).ended()


@pytest.fixture(scope="module")
def one(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Phases:
    """What one process makes when nothing happens to it."""
    folder = tmp_path_factory.mktemp("one")
    phases = make(folder)
    ended = whole(phases, folder / "pod")
    assert ended.code == 0, ended.log
    return phases


def weights(phases: Phases) -> dict[str, Any]:
    from safetensors.numpy import load

    names = [file.name for file in phases.committed(TRAIN).files if file.name.endswith(".safetensors")]
    assert len(names) == 1
    return dict(load(phases.read(TRAIN, names[0])))


def apart(first: Phases, second: Phases) -> float:
    from safetensors.numpy import load_file

    return exact.apart(weights(first), weights(second), load_file(BASE / "model.safetensors"))


def rows(phases: Phases) -> list[dict[str, Any]]:
    return [json.loads(line) for line in phases.read(TRAIN, "metrics.jsonl").splitlines()]


def same_training(first: Phases, second: Phases) -> None:
    assert apart(first, second) < exact.TOLERANCE
    for ones, twos in zip(rows(first), rows(second), strict=True):
        for figure in ("loss", "grad_norm", "reward"):
            if figure in ones:
                assert ones[figure] == pytest.approx(twos[figure], rel=1e-3, abs=1e-5), figure
    assert len({row["reward"] for row in rows(first) if "reward" in row}) > 1  # there is something to learn


@pytest.mark.parametrize("over", [{}, {"lora": {"rank": 4}}], ids=["all weights, in CPU memory", "lora"])
def test_two_processes_that_share_the_weights_out_train_what_one_trains(
    make: Make, one: Phases, tmp_path: Path, over: dict[str, Any]
) -> None:
    if over:
        one = make(tmp_path / "one", **over)
        assert whole(one, tmp_path / "one" / "pod").code == 0
    # On a CPU the copies from CPU memory and back are none; what FSDP2 does with them is as on a GPU.
    two = make(tmp_path / "two", **over, sharding="fsdp", gradientCheckpointing=bool(over), cpuOffload=not over)
    assert over or two.prefix(TRAIN) == one.prefix(TRAIN)  # but for gradientCheckpointing, how is no input
    ended = sharded(two, tmp_path / "two" / "pod")
    assert (ended.code, ended.result.outcome) == (0, "committed"), ended.log
    # Under DDP, which accelerate makes of it where it cannot shard, each process would hold all.
    shares = [json.loads((tmp_path / f"two/pod/shares-{rank}.json").read_text()) for rank in (0, 1)]
    assert set(shares[0]) == {"policy", "moments"} | (set() if over else {"reference"})
    for name in shares[0]:
        assert sum(each[name] for each in shares) == pytest.approx(1) and 0.4 < shares[0][name] < 0.6, name
    in_cpu = [json.loads((tmp_path / f"two/pod/offloaded-{rank}.json").read_text()) for rank in (0, 1)]
    assert all(set(found) == {not over} for each in in_cpu for found in each) and len(in_cpu[0]) == len(shares[0]) - 1
    same_training(one, two)
    ones, twos = one.digests(TRAIN), two.digests(TRAIN)
    changed = {"model/model.safetensors", "model/adapter_model.safetensors", "fingerprint.jsonl"}
    assert ones.keys() == twos.keys()
    assert {name for name in ones if ones[name] != twos[name]} <= changed
    for first, second in zip(one.rows(TRAIN, FINGERPRINT), two.rows(TRAIN, FINGERPRINT), strict=True):
        assert first["tokens"] == second["tokens"]
        for figures in ("before", "logprobs"):
            assert first[figures] == pytest.approx(second[figures], abs=0.01), figures


def crash(phases: Phases, after: int, rank: int = 0) -> Happening:
    """In the second step of an attempt, once the checkpoint of update ``after`` is there."""
    manifest = phases.folder / "store" / checkpoint_prefix(phases.prefix(TRAIN), after) / "MANIFEST.json"
    return Happening("kill" if rank else "crash", rank, batch=2, once=str(manifest))


def test_training_goes_on_from_one_to_two_processes_and_back(make: Make, one: Phases, tmp_path: Path) -> None:
    alone, shared = make(tmp_path), make(tmp_path, sharding="fsdp")
    assert alone.prefix(TRAIN) == shared.prefix(TRAIN)  # how it is computed is no input of it
    first = whole(alone, tmp_path / "first", crash(alone, 2))
    assert first.code == 3 and alone.checkpoints(TRAIN) == [2], first.log
    second = sharded(shared, tmp_path / "second", crash(alone, 4, rank=1))
    assert second.code == 3 and alone.checkpoints(TRAIN) == [2, 4], second.log
    manifests = [read_manifest(alone.store, checkpoint_prefix(alone.prefix(TRAIN), update)) for update in (2, 4)]
    states = [{file.name: file.size for file in each.files} for each in manifests if each]
    assert {"model.safetensors", "optimizer.pt"} < states[0].keys()
    # Nobody held the whole of what two processes wrote: each has its share of weights and of either moment.
    shares = [[size for name, size in states[1].items() if name.startswith(f"shard-0000{n}-")] for n in (1, 2)]
    assert [len(each) for each in shares] == [3, 3] and "model.safetensors" not in states[1]
    assert states[1]["optimizer.pt"] < min(map(min, shares)) / 4
    whole_size = states[0]["model.safetensors"] + states[0]["optimizer.pt"]
    assert all(0.4 < sum(each) / whole_size < 0.6 for each in shares)
    third = whole(alone, tmp_path / "third")
    assert (third.code, third.result.resumed_from) == (0, 2), third.log
    same_training(one, alone)


@pytest.mark.parametrize("broken", ["loss", "moments"])
def test_a_trainer_that_is_broken_trains_something_else(
    make: Make, one: Phases, tmp_path: Path, broken: Literal["loss", "moments"]
) -> None:
    """The comparison of this file sees it."""
    alone, shared = make(tmp_path), make(tmp_path, sharding="fsdp")
    begun = broken == "moments"
    if begun:
        first = whole(alone, tmp_path / "first", crash(alone, 2))
        assert first.code == 3 and alone.checkpoints(TRAIN) == [2], first.log
    ended = sharded(shared, tmp_path / "second", broken=broken)
    assert (ended.code, ended.result.resumed_from) == (0, 1 if begun else None), ended.log
    with pytest.raises(AssertionError):
        same_training(one, shared)


def test_pods_that_share_the_weights_out_are_stopped_within_a_step_and_end_with_the_same_bytes(
    make: Make, tmp_path: Path
) -> None:
    def attempt(phases: Phases, folder: Path, happening: Happening | None = None) -> list[Ended]:
        port = free_port("")
        script = Script(happening, exact=True, shards=True)
        pods = [
            Pod(phases, TRAIN, folder / str(node), processes=1, nodes=2, node=node, port=port, script=script)
            for node in (0, 1)
        ]
        found = [pod.ended() for pod in pods]
        assert gone([pid for pod in pods for pid in pod.members()])
        return found

    undisturbed, stopped = (make(tmp_path / name, sharding="fsdp") for name in ("undisturbed", "stopped"))
    assert [each.code for each in attempt(undisturbed, tmp_path / "all")] == [0, 0]
    first, second = attempt(stopped, tmp_path / "first", Happening("sigterm", rank=1, batch=2))
    assert (first.code, second.code) == (143, 143), first.log + second.log
    assert "stopped on request in step 2 of 3; the checkpoint is committed" in first.log
    prefix = checkpoint_prefix(stopped.prefix(TRAIN), max(stopped.checkpoints(TRAIN)))
    kept = read_manifest(stopped.store, f"{prefix}/{COMPLETIONS}")
    assert kept is not None and kept.file("completions-0.safetensors") and kept.file("completions-1.safetensors")
    again = sharded(stopped, tmp_path / "again")  # the same two processes, in one pod
    assert (again.code, again.result.resumed_from) == (0, 1), again.log
    assert stopped.digests(TRAIN) == undisturbed.digests(TRAIN)


@pytest.mark.parametrize("form", ["whole", "shares"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("weights", "has no lm_head.weight"),
        ("shape", "has lm_head.weight of shape (2, 4) for (4, 4)"),
        ("moments", "has moments of 2 parameters where 1 are trained"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path, change: str, expected: str, form: str) -> None:
    import torch
    from safetensors.torch import save_file

    from selfevo_contract.errors import InputError
    from selfevo_trainer.grpo import sharding, shards

    reader: Any = shards if form == "shares" else sharding
    model = torch.nn.Module()
    model.lm_head = torch.nn.Linear(4, 4, bias=False)
    name = "another" if change == "weights" else "lm_head.weight"
    if form == "whole":
        save_file({name: torch.zeros(2, 4)}, tmp_path / "model.safetensors")
    else:
        save_file({f"weights.{name}": torch.zeros(2, 4)}, tmp_path / "shard-00001-model-00001-of-00001.safetensors")
    assert shards.lie_in(tmp_path) == (form == "shares")
    optimizer = torch.optim.AdamW(model.parameters())
    others = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1)) for _ in range(2)])
    torch.save(others.state_dict(), tmp_path / "optimizer.pt")
    with pytest.raises(InputError) as refused:
        if change == "moments":
            reader.load_optimizer(optimizer, None, tmp_path)
        else:
            reader.load_weights(model, tmp_path)
    assert expected in str(refused.value) and "it is of another training; remove the step's checkpoints" in str(
        refused.value
    )


def test_a_checkpoint_is_none_before_all_processes_have_uploaded_their_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfevo_contract.errors import ServiceError
    from selfevo_trainer.distributed import collective
    from selfevo_trainer.grpo import checkpoints

    store = open_store(f"file://{tmp_path}/store")
    config = SimpleNamespace(prefix=f"team/solver-train/{KEY}")
    contexts: list[Any] = [
        SimpleNamespace(store=store, config=config, rank=SimpleNamespace(first=first)) for first in (True, False)
    ]
    given: list[Any] = []
    monkeypatch.setattr(collective, "collected", lambda mine, _: given.append(mine) or [])

    def save(context: Any, others: Any, write_id: str) -> int:
        folder = tmp_path / f"checkpoint-{len(given)}"
        write_files(folder, {f"shard-{len(given)}.safetensors": b"x" * 8})
        if context.rank.first:
            monkeypatch.setattr(collective, "collected", lambda mine, _: [mine, *others])
        return checkpoints.save(context, draft(), folder, 4, 1, checkpoints.Shared(write_id, None))

    assert save(contexts[1], None, "a" * 16) == 8
    assert read_manifest(store, checkpoint_prefix(config.prefix, 4)) is None
    with pytest.raises(ServiceError, match="process 1 cannot upload its part of a checkpoint; its log says why"):
        save(contexts[0], [None], "a" * 16)
    assert store.list("") == []  # nothing is left of it
    monkeypatch.setattr(collective, "collected", lambda mine, _: given.append(mine) or [])
    with monkeypatch.context() as broken:
        broken.setattr(checkpoints, "upload_part", lambda *_: (_ for _ in ()).throw(OSError("the disk is gone")))
        with pytest.raises(OSError, match="the disk is gone"):
            save(contexts[1], None, "b" * 16)
    assert given[-1] is None  # the first process, which waits, gets to know
    assert save(contexts[1], None, "b" * 16) == 8
    assert save(contexts[0], [given[-1]], "b" * 16) == 16
    made = read_manifest(store, checkpoint_prefix(config.prefix, 4))
    assert made is not None and [file.name for file in made.files] == ["shard-2.safetensors", "shard-3.safetensors"]


def test_a_part_that_cannot_be_written_ends_all_processes_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.checkpoint.api import CheckpointException

    from selfevo_contract.errors import ServiceError
    from selfevo_trainer.distributed import collective
    from selfevo_trainer.grpo import shards

    def fails(*_: Any, storage_writer: Any, **__: Any) -> None:
        assert storage_writer.per_thread_copy_ahead == 0  # no stream of a GPU is opened in the thread
        raise CheckpointException("write", {1: (OSError("No space left on device"), None)})  # type: ignore[dict-item]

    monkeypatch.setattr(shards, "save", fails)
    with pytest.raises(ServiceError, match="process 1 cannot write its part of a checkpoint: No space left on device"):
        shards.write({}, tmp_path, None)
    monkeypatch.setattr(collective, "rank", lambda: 1)
    with pytest.raises(OSError, match="No space left on device"):
        shards.write({}, tmp_path, None)


def test_all_processes_wait_for_their_uploads_as_long_as_the_shortest_grace_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import time

    from selfevo_trainer.distributed import collective
    from selfevo_trainer.grpo.checkpointer import Checkpointer

    for left, own, until in (([None, 20.0], None, 20), ([50.0, 20.0, None], 50.0, 20), ([None, None], None, None)):
        begun = time.monotonic()
        asked: Any = SimpleNamespace(context=SimpleNamespace(stop_by=lambda own=own, begun=begun: own and begun + own))
        monkeypatch.setattr(collective, "all_gather", lambda _, left=left: left)
        found = Checkpointer._until(asked)
        assert found is None if until is None else found is not None and 0 <= found - begun - until < 10
