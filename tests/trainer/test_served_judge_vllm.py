"""The real vLLM (its CPU build) serves the judge of examples/writing.yaml on one machine, and scores as transformers
does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.judged import ROLLOUT, begun, scores, writing
from harness.vllm import Vllm
from selfevo_contract.process import CONFIG_ENV

pytestmark = pytest.mark.slow


def test_a_rollout_is_scored_by_vllm_as_by_transformers(vllm: Vllm, tmp_path: Path) -> None:
    before = begun(writing(tmp_path / "before"))
    served = writing(tmp_path / "served", server={"startupSeconds": 900})
    shutil.copytree(tmp_path / "before" / "store", tmp_path / "served" / "store")
    assert before(ROLLOUT).code == 0
    environment = served.environment(ROLLOUT)
    assert json.loads(environment[CONFIG_ENV])["judgeServer"]["replicas"] == 1
    vllm.run("-m", "selfevo_trainer", extra=environment)
    there, here = scores(before), scores(served)
    assert len(there) == len(here) > 60
    assert max(abs(a - b) for a, b in zip(there, here, strict=True)) < 1e-4
