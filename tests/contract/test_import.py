"""The contract can be used alone: neither kopf nor torch comes along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMPORT_ALL = """
import importlib, pkgutil, sys, selfevo_contract
for module in pkgutil.walk_packages(selfevo_contract.__path__, "selfevo_contract."):
    if not module.name.endswith(".__main__"):
        importlib.import_module(module.name)
assert "selfevo_contract.crd.resource" in sys.modules
unwanted = ("torch", "transformers", "kopf", "kubernetes", "boto3", "numpy", "rich", "typer")
heavy = [name for name in unwanted if name in sys.modules]
assert not heavy, heavy
"""


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.mark.slow
def test_importing_the_contract_imports_neither_kopf_nor_torch() -> None:
    run(sys.executable, "-c", IMPORT_ALL)


@pytest.mark.slow
def test_importing_reconcile_imports_the_contract_only() -> None:
    run(
        sys.executable,
        "-c",
        "import sys, selfevo_core.reconcile\n"
        "unwanted = ('torch', 'kopf', 'kubernetes', 'selfevo_trainer', 'selfevo', 'yaml')\n"
        "heavy = [name for name in unwanted if name in sys.modules]\n"
        "assert not heavy, heavy",
    )


@pytest.mark.slow
def test_the_base_install_has_the_contract_and_the_command_and_nothing_heavy(tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist", cwd=ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "install", "--constraint", ROOT / "constraints.txt", wheel)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    run(python, "-c", IMPORT_ALL, cwd=tmp_path, env=clean)
    assert "Usage: selfevo" in run(python.with_name("selfevo"), "--help", cwd=tmp_path, env=clean)
    installed = {line.split("==")[0].lower() for line in run(*pip, "freeze").splitlines()}
    assert not installed & {"torch", "transformers", "kopf", "kubernetes", "boto3"}
    example = ROOT / "examples" / "arithmetic.yaml"
    shown = run(python.with_name("selfevo"), "plan", example, "--storage", tmp_path / "store", cwd=tmp_path, env=clean)
    assert "0 of 13 steps are in the store" in shown
