"""Values, their schema and their documentation say the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from harness.chart import CHART
from harness.tools import tool

CRDS = CHART.parents[1] / "crds"
VALUES = (CHART / "values.yaml").read_text()
GENERATOR = tool("chart_values")
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def of_schema(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, below in schema.get("properties", {}).items():
        yield f"{path}{name}"
        yield from of_schema(below, f"{path}{name}.")


def of_values(values: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths of what is written in values.yaml, as deep as the schema names properties."""
    for name, below in values.items():
        yield f"{path}{name}"
        inner = schema.get("properties", {}).get(name, {})
        if isinstance(below, dict) and "properties" in inner:
            yield from of_values(below, inner, f"{path}{name}.")


def closed(schema: dict[str, Any], path: str = "values") -> Iterator[tuple[str, bool]]:
    if "properties" in schema:
        yield path, schema.get("additionalProperties") is False
        for name, below in schema["properties"].items():
            yield from closed(below, f"{path}.{name}")


def test_the_readme_has_the_tables_that_the_generator_makes():
    readme = (CHART / "README.md").read_text()
    assert GENERATOR.page(readme, VALUES) == readme, "run `python tools/chart_values.py`"


def test_a_value_without_a_description_is_an_error():
    with pytest.raises(ValueError, match="b has no description"):
        GENERATOR.tables("# -- Of a.\na: 1\nb: 2\n")


def test_a_description_may_run_over_lines_and_a_value_may_be_an_object():
    made = GENERATOR.tables("# -- Of a,\n# at length.\na: {c: [1]}\n# -- A group.\ng:\n  # -- Of d | e.\n  d: null\n")
    assert '| `a` | `{"c": [1]}` | Of a, at length. |' in made
    assert "### g\n\nA group.\n" in made and "| `g.d` | `null` | Of d \\| e. |" in made


def test_the_schema_knows_every_value_and_no_other():
    known = {path for path in of_schema(SCHEMA) if path != "global"}
    written = set(of_values(yaml.safe_load(VALUES), SCHEMA))
    examples = {path for path in known if path.startswith(("tests.storage.", "tests.model."))}
    assert known - examples == written


def test_the_schema_is_closed_wherever_it_names_properties():
    assert [path for path, is_closed in closed(SCHEMA) if not is_closed] == []


def test_the_chart_installs_the_crd_that_the_contract_makes():
    ours = (CHART / "files" / "selfevolutionruns.yaml").read_text()
    made = (CRDS / "selfevo.dev_selfevolutionruns.yaml").read_text()
    assert ours == made, "cp crds/selfevo.dev_selfevolutionruns.yaml charts/selfevo/files/selfevolutionruns.yaml"
    assert not (CHART / "files" / "selfevolutionruns.yaml").is_symlink()
