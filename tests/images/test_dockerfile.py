"""The Dockerfile, as far as it can be judged by reading it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
IMAGES = ("operator", "ui", "trainer", "trainer-cpu")


def stages() -> dict[str, str]:
    """Each stage's name and its instructions, continued lines joined, comments left out."""
    lines = re.sub(r"^#.*\n", "", TEXT.replace("\\\n", " "), flags=re.M)
    parts = re.split(r"^FROM ", lines, flags=re.M)[1:]
    return {part.split("\n")[0].rsplit(" AS ", 1)[1]: part for part in parts}


def test_the_linter_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed (make setup)")
    done = subprocess.run([hadolint, "--no-color", "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    broken = "FROM debian:12\nRUN apt-get install curl\n"
    assert subprocess.run([hadolint, "-"], input=broken, capture_output=True, text=True).returncode != 0


def test_every_base_is_a_stage_or_named_by_a_digest_that_must_be_given() -> None:
    known: set[str] = set()
    for name, text in stages().items():
        base = text.split(" AS ")[0]
        if base not in known:
            given = re.fullmatch(r"\$\{(\w+)_IMAGE\}@\$\{\1_DIGEST\}", base)
            assert given, f"{name} is FROM {base}"
            assert f"\nARG {given[1]}_DIGEST=sha256:{'0' * 64}\n" in TEXT
        known.add(name)
    assert set(IMAGES) < known


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_a_user_without_rights_and_says_what_it_is(image: str) -> None:
    text = stages()[image]
    assert re.search(r"^USER 10001:10001$", text, flags=re.M)  # a number: Kubernetes cannot check a name
    assert "\nRUN " not in text and "\nADD " not in text
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in text, label
    package = {"operator": "selfevo_operator", "ui": "selfevo.main"}.get(image, "selfevo_trainer")
    assert f'ENTRYPOINT ["python", "-m", "{package}"]' in text
    copies = re.findall(r"^COPY (.*)$", text, flags=re.M)
    assert copies == [f"--from={image}-environment /opt/selfevo /opt/selfevo", "--from=own /opt/selfevo /opt/selfevo"]


def test_the_version_is_that_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.findall(r"ARG VERSION=(.*)", TEXT) == [version] * len(IMAGES)


def test_a_build_sees_what_it_copies_and_nothing_else() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    seen = {line[1:] for line in ignored if line.startswith("!")}
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.*)$", TEXT, flags=re.M):
        copied |= {path.rstrip("/") for path in line.split()[:-1]}
    assert seen == copied
    assert all((ROOT / path).exists() for path in seen)
    assert [line for line in ignored if not line.startswith(("#", "!"))] == ["*", "**/__pycache__", "**/*.pyc"]
