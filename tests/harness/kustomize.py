"""`kubectl kustomize`: what a folder of manifests comes to."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from harness.cluster import tools

Object = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: 1e-06 is a number."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^-?\d+[eE][-+]?\d+$"), list("-0123456789"))


def documents(text: str) -> list[Object]:
    return [found for found in yaml.load_all(text, _Loader) if found is not None]


def build(folder: Path) -> list[Object]:
    """The objects, as kubectl would apply them.

    Raises:
        ToolUnavailable: when this machine cannot have kubectl.
    """
    command = [str(tools.program(tools.KUBECTL)), "kustomize", str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == "", answer.stderr  # deprecations
    return documents(answer.stdout)
