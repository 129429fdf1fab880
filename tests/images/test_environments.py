"""The Python environments of the images, made by the very script that the Dockerfile runs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
pytestmark = pytest.mark.slow


def pinned(*files: str) -> dict[str, str]:
    lines = [line for file in files for line in (ROOT / file).read_text().splitlines()]
    return dict(line.split("==") for line in lines if "==" in line)


def run(*command: str | Path, env: Mapping[str, str] | None = None, expect: int = 0) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(["nice", *command], env={**clean, **(env or {})}, capture_output=True, text=True, cwd="/")
    assert done.returncode == expect, done.stderr
    return done.stdout + done.stderr


def make(target: str, folder: Path, **variables: str) -> Path:
    """An environment; what an image has of it besides, such as a bill of materials, is left out where DRAFT is set."""
    environment = {"UV": str(BIN / "uv"), "CYCLONEDX": "true", "PYTHON": sys.executable, **variables}
    run(ROOT / "tools" / "image-environment", target, folder, env=environment)
    return folder / "bin" / "python"


def installed(python: Path) -> dict[str, str]:
    listed = json.loads(run(BIN / "uv", "pip", "list", "--quiet", "--format=json", "--python", python))
    return {each["name"]: each["version"] for each in listed}


def fingerprint(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Every file's digest, mode and time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        name = str(path.relative_to(folder))
        found[name] = (hashlib.sha256(content).hexdigest(), status.st_mode, int(status.st_mtime))
    return found


def test_two_builds_give_the_same_bytes_and_times(tmp_path: Path) -> None:
    place, prints = tmp_path / "selfevo", []
    for again in range(2):
        for target in ("operator", "own"):
            make(target, place)
            prints.append(fingerprint(place))
            place.rename(tmp_path / f"{target}-{again}")
    (first, own, *second) = prints
    assert [first, own] == second
    assert len(first) > 1000 and any(name.endswith(".pyc") for name in own)


def test_the_operators_environment_has_the_versions_that_are_pinned_and_no_torch(tmp_path: Path) -> None:
    python = make("operator", tmp_path / "venv", DRAFT="1")
    found, wanted = installed(python), pinned("constraints.txt")
    assert found.items() <= wanted.items()
    assert {"kopf", "kubernetes", "pydantic"} <= found.keys()
    assert not {"torch", "transformers", "boto3", "numpy", "pip"} & found.keys()


def test_the_pages_environment_has_what_they_need_and_no_torch(tmp_path: Path) -> None:
    python = make("ui", tmp_path / "venv", DRAFT="1")
    found, wanted = installed(python), pinned("constraints.txt")
    assert found.items() <= wanted.items()
    assert not {"torch", "transformers", "kopf", "pip"} & found.keys()
    source = ":".join(str(ROOT / place) for place in ("contract", "trainer", "cli"))  # as the image has them
    module = "from selfevo.ui import app, cluster_runs, server; import kubernetes, boto3, pyarrow"
    run(python, "-c", module, env={"PYTHONPATH": source})


@pytest.mark.parametrize("target", ["trainer-cpu", "trainer"])
def test_the_trainer_starts_in_an_environment_of_its_own(tmp_path: Path, target: str) -> None:
    python = make(target, tmp_path / "venv", DRAFT="1")
    found, with_vllm = installed(python), target == "trainer"
    files = ("constraints.txt", "constraints-vllm.txt") if with_vllm else ("constraints.txt",)
    assert found.items() <= pinned(*files).items()
    assert ("vllm" in found) == with_vllm
    assert not {"kopf", "kubernetes", "pytest", "pip"} & found.keys()
    run(BIN / "uv", "pip", "check", "--quiet", "--python", python)
    make("own", tmp_path / "own", DRAFT="1")
    run("cp", "--archive", f"{tmp_path}/own/.", tmp_path / "venv")  # as the Dockerfile lays one over the other
    output = run(python, "-m", "selfevo_trainer", env={"SELFEVO_PHASE_CONFIG": "{}"}, expect=2)
    assert "SELFEVO_PHASE_CONFIG: " in output and "Traceback" not in output
    module = "vllm" if with_vllm else "selfevo_trainer.phases.solver_train"
    run(python, "-c", f"import {module}", env={"HOME": str(tmp_path)})


def test_the_versions_of_the_trainer_with_vllm_are_pinned_whole(tmp_path: Path) -> None:
    flags = ("--python-version=3.11", "--python-platform=x86_64-manylinux_2_28", "--no-header", "--no-annotate")
    limits = [f"--constraint={ROOT / name}" for name in ("constraints.txt", "constraints-vllm.txt")]
    extras = ("--extra=trainer", "--extra=tracking", "--extra=traces", "--extra=vllm")
    output = run(BIN / "uv", "pip", "compile", "--quiet", ROOT / "pyproject.toml", *extras, *limits, *flags)
    found = dict(re.findall(r"^([\w.-]+)==(\S+)", output, flags=re.M))
    assert found.items() <= pinned("constraints.txt", "constraints-vllm.txt").items()
    assert {"vllm", "torch", "transformers"} <= found.keys()
    own = pinned("constraints-vllm.txt").keys()
    assert not own & pinned("constraints.txt").keys() and own <= found.keys()
