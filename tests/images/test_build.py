"""The operator's image, built by buildah from the Dockerfile over a fresh Debian root, and what is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from harness.buildah import Builder, builder
from harness.gotools import ToolUnavailable

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images() -> Iterator[Builder]:
    try:
        with builder() as made:
            yield made
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def operator(images: Builder) -> str:
    return images.build("operator", REVISION="0123abc")


def test_a_build_without_the_digest_of_its_base_ends_at_once(images: Builder) -> None:
    with pytest.raises(RuntimeError, match="0" * 64):
        images.build("operator", SLIM_DIGEST=f"sha256:{'0' * 64}")


def test_the_operator_starts_without_rights_on_a_read_only_root(images: Builder, operator: str) -> None:
    config = images.config(operator)
    assert config["User"] == "10001:10001"
    assert config["Labels"]["org.opencontainers.image.revision"] == "0123abc"
    done = images.run(operator, *config["Entrypoint"], "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: python -m selfevo_operator"), done.stderr
    done = images.run(operator, *config["Entrypoint"])
    assert done.returncode == 2 and "name whose runs to drive" in done.stderr
    done = images.run(operator, "sh", "-c", "id -u; touch /opt/selfevo/x /x; echo $?")
    assert done.stdout.split() == ["10001", "1"] and done.stderr.count("Read-only file system") == 2


def test_the_operator_has_neither_torch_nor_what_built_it(images: Builder, operator: str) -> None:
    done = images.run(operator, "python", "-c", "import selfevo_operator.main, selfevo.main; import torch")
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'torch'"
    done = images.run(operator, "sh", "-c", "ls -d /src /tools /root/.cache /opt/selfevo/bin/uv; command -v gcc")
    assert done.stdout == ""
    foreign = "find /opt/selfevo -mindepth 1 ! -user root -o ! -type l -perm /022 -o -newermt 1980-01-02"
    assert images.run(operator, "sh", "-c", foreign).stdout == ""


def test_the_image_says_what_is_in_it(images: Builder, operator: str) -> None:
    bill = json.loads(images.run(operator, "cat", "/opt/selfevo/sbom.cdx.json").stdout)
    assert bill["bomFormat"] == "CycloneDX"
    listed = {(each["name"].lower().replace("_", "-"), each["version"]) for each in bill["components"]}
    list_installed = (
        "import importlib.metadata as m\n"
        "for d in m.distributions(): print(d.name.lower().replace('_', '-').replace('.', '-'), d.version)"
    )
    found = images.run(operator, "python", "-c", list_installed).stdout.splitlines()
    installed = {tuple(line.split()) for line in found} - {("selfevo", bill["metadata"]["component"]["version"])}
    assert {name.replace(".", "-"): version for name, version in listed} == dict(installed)
    assert len(installed) > 20
