"""The pages say what the code says: fields, reasons, and what mkdocs makes of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.tools import tool
from selfevo_contract import reasons
from selfevo_contract.run import NOT_BUILT
from selfevo_contract.spec.run import RunSpec

ROOT = Path(__file__).resolve().parents[2]
DEFINITION = yaml.load((ROOT / "crds" / "selfevo.dev_selfevolutionruns.yaml").read_text(), yaml.CSafeLoader)


reference, hooks = tool("manifest_reference"), tool("docs_hooks")


def test_the_reference_is_made_from_the_crd() -> None:
    text = reference.PAGE.read_text()
    assert reference.page(text, DEFINITION) == text, "run `python tools/manifest_reference.py`"


def names(schema: dict[str, Any]) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        yield name
        yield from names(field)
    for inner in ("items", "additionalProperties"):
        if inner in schema:
            yield from names(schema[inner])


def test_the_reference_has_every_field_with_its_description() -> None:
    (version,) = DEFINITION["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    text = reference.PAGE.read_text()
    wanted = {*names(properties["spec"]), *names(properties["status"])}
    assert len(wanted) > 100
    assert [name for name in sorted(wanted) if f"| `{name}` |" not in text] == []
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.rstrip("| ").rsplit("|", 1)[-1].strip() == ""] == []
    links = set(re.findall(r"\(#([^)]+)\)", text))
    headings = {reference._anchor(line.removeprefix("### ")) for line in text.splitlines() if line.startswith("### ")}
    assert links <= headings


SCHEMA = {
    "description": "An a|b.",
    "required": ["one"],
    "x-kubernetes-validations": [{"rule": "self.one < self.two", "message": "one is too large; lower it"}],
    "properties": {
        "one": {"type": "integer", "minimum": 1, "maximum": 2000, "description": "One."},
        "two": {
            "type": "string",
            "default": "x" * 80,
            "description": "Two <b>.",
            "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "this cannot change"}],
        },
        "three": {
            "type": "object",
            "description": "Three.",
            "properties": {"in": {"type": "boolean", "description": "I."}},
        },
        "four": {
            "type": "object",
            "description": "Four.",
            "properties": {"in": {"type": "boolean", "description": "I."}},
        },
    },
}


def test_the_reference_says_what_is_not_built() -> None:
    [line] = [line for line in reference.PAGE.read_text().splitlines() if line.startswith("**Not built yet**")]
    fields = {str(RunSpec.model_fields[name].alias or name) for name in NOT_BUILT}
    assert set(re.findall(r"`spec\.(\w+)`", line)) == fields | {"solver"}


def test_a_table_says_type_bounds_default_and_whether_it_may_change() -> None:
    lines = list(reference.Writer().tables("spec", SCHEMA))
    assert "| `one` | integer, 1 to 2,000 | **required** | yes | One. |" in lines
    assert f'| `two` | string | `"{"x" * 59}...` | no | Two &lt;b>. |' in lines
    assert "- one is too large; lower it" in lines and "An a\\|b." in lines
    # what is the same is written once
    assert "| `three` | [object](#specthree) |  |  | Three. |" in lines
    assert "| `four` | [as spec.three](#specthree) |  |  | Four. |" in lines
    assert lines.count("| `in` | boolean |  | yes | I. |") == 1


def all_reasons() -> Iterator[str]:
    yield from (value for name, value in vars(reasons).items() if name.isupper())
    yield from re.findall(r'"waiting": {\s*"reason": "(\w+)"', (ROOT / "tests" / "golden" / "pods.json").read_text())


def test_a_reason_is_spelled_in_one_place() -> None:
    values = "|".join({value for name, value in vars(reasons).items() if name.isupper()})
    spelled = re.compile(rf'reason\w*(?:: str)? ?= ?"\w+"|(?m:^[A-Z_]+ = "(?:{values})"$)')
    files = [file for folder in ("contract", "operator", "trainer", "cli") for file in (ROOT / folder).rglob("*.py")]
    found = {str(file): spelled.findall(file.read_text()) for file in files}
    assert len(found.pop(str(Path(reasons.__file__)))) > 60
    assert {name: texts for name, texts in found.items() if texts} == {}


def test_every_reason_has_its_line_in_failures() -> None:
    text = (ROOT / "docs" / "failures.md").read_text()
    known = set(all_reasons()) - {"Error", "PodInitializing", reasons.COMPLETE}
    assert len(known) > 35
    assert [reason for reason in sorted(known) if not re.search(rf"\b{reason}\b", text)] == []


def test_every_command_of_the_pages_exists() -> None:
    from typer.main import get_command

    from selfevo.main import app

    command: Any = get_command(app)
    verbs = {*command.commands, *(f"artifacts {name}" for name in command.commands["artifacts"].commands)}
    used = set()
    for page in (ROOT / "docs").glob("*.md"):
        code = re.findall(r"^    .*|`[^`]+`", page.read_text(), flags=re.M)
        used |= set(re.findall(r"(?<![\w-])selfevo ((?:artifacts )?[a-z]+) (?=[\w./-]*[A-Z./])", "\n".join(code)))
    assert {"run", "status", "artifacts path"} <= used <= verbs


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see [the chart](../charts/selfevo/README.md).", "see the chart (`charts/selfevo/README.md`)."),
        ("[examples/gitops](../examples/gitops)", "`examples/gitops`"),
        ("[states.md](states.md#the-run)", "[states.md](states.md#the-run)"),
        ("[a](https://example.org/../x)", "[a](https://example.org/../x)"),
    ],
)
def test_a_link_out_of_the_pages_becomes_a_path(text: str, shown: str) -> None:
    assert hooks.without_links_out(text, "page.md") == shown


def test_a_link_to_a_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"docs/page\.md links to no/such, which does not exist"):
        hooks.without_links_out("[x](../no/such)", "page.md")


def test_a_link_by_a_file_name_gets_the_title_of_the_page() -> None:
    assert hooks.with_titles("[queues.md](queues.md)", "index.md") == "[Queues](queues.md)"
    assert hooks.with_titles("[these](queues.md)", "index.md") == "[these](queues.md)"


def test_a_state_diagram_becomes_a_table() -> None:
    made = hooks.without_diagrams((ROOT / "docs" / "states.md").read_text())
    assert "mermaid" not in made and "| Running | Failed | a step is given up |" in made
    with pytest.raises(ValueError, match="write it as"):
        hooks.without_diagrams("```mermaid\nstateDiagram-v2\n  note right of A\n```\n")
