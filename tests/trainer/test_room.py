"""Whether a checkpoint has room is asked of the model that is trained, by the processes that write it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runs import EXAMPLES
from selfevo_contract.errors import InputError
from selfevo_contract.phases import Loading
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.lora import Lora
from selfevo_contract.spec.verifier import Verifier
from selfevo_trainer.inputs.room import expected_bytes
from selfevo_trainer.models.weights import count, files_of

BASE = EXAMPLES / "arithmetic" / "base"
LOADING = Loading.model_validate({"dtype": "bfloat16", "trustRemoteCode": False})


@pytest.fixture
def unknown(tmp_path: Path) -> Iterator[Path]:
    """The same weights under an architecture whose sizes no formula knows."""
    shutil.copytree(BASE, tmp_path / "model")
    config = json.loads((BASE / "config.json").read_bytes()) | {"model_type": "cake"}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    yield tmp_path / "model"


def test_a_checkpoint_is_twelve_bytes_a_trained_parameter(unknown: Path) -> None:
    stored = sum(file.stat().st_size for file in files_of(BASE))  # float32, and a header
    assert count(BASE) * 4 == pytest.approx(stored, rel=0.02)
    assert expected_bytes(Grpo(), BASE, LOADING) == expected_bytes(Grpo(), unknown, LOADING) == 12 * count(BASE)
    adapter: dict[str, Any] = {"rank": 2}
    small = expected_bytes(Grpo(lora=adapter), BASE, LOADING)
    assert small is not None and small < 12 * count(BASE) / 4
    assert expected_bytes(Grpo(lora=adapter), unknown, LOADING) is None
    judge = Verifier(anchors={"data": {"uri": "file:///a.jsonl"}})
    assert expected_bytes(judge, BASE, LOADING) == expected_bytes(judge, unknown, LOADING) == 12 * count(BASE)
    adapted = judge.model_copy(update={"lora": Lora(rank=2)})
    assert expected_bytes(adapted, BASE, LOADING) == small and expected_bytes(adapted, unknown, LOADING) is None


def test_only_who_writes_checkpoints_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.inprocess import Phases
    from harness.tiny import settings, write_questions
    from runs import arithmetic
    from selfevo_trainer.context import ALONE
    from selfevo_trainer.distributed.layout import Rank
    from selfevo_trainer.inputs import room

    questions = write_questions(tmp_path / "heldout.jsonl")
    phases = Phases(arithmetic(settings(questions=questions), store=tmp_path / "store"), tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 0, 10))

    class Here:
        rank = ALONE
        workdir = tmp_path / "work"
        grace_seconds = None
        checkpoint_bytes: int | None = None

    context: Any = Here()
    inputs: Any = {name: step.inputs for name, step in phases.plan.by_name.items()}
    with pytest.raises(InputError, match=r"is .*on a disk of 1e-08 GB, and a checkpoint of challenger-train takes"):
        room.check(context, inputs["challenger-train-1"], BASE)
    assert context.checkpoint_bytes == 12 * count(BASE)
    room.check(context, inputs["solver-rollout-1"], BASE)
    room.check(context, inputs["evaluate-0"], BASE)
    none, once = (inputs["challenger-train-1"].model_copy(update={"grpo": Grpo(maxSteps=steps)}) for steps in (0, 1))
    room.check(context, none, BASE)
    with pytest.raises(InputError, match="a checkpoint of challenger-train takes"):
        room.check(context, once, BASE)  # its completions are kept before its only update
    context.rank = Rank(1, 2)
    room.check(context, inputs["challenger-train-1"], BASE)
    # Where the weights are shared out every process writes, each pod's to a disk of its own.
    shared = once.model_copy(update={"grpo": Grpo(sharding="fsdp")})
    with pytest.raises(InputError, match="a checkpoint of challenger-train takes"):
        room.check(context, shared, BASE)
