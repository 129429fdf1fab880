"""The tables of docs/sizing.md and in the headers of examples/, made anew by the formula (`selfevo_contract.sizing`).

    python tools/gpu_sizing.py

`selfevo size RUN.yaml` works a manifest out.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import yaml

from selfevo.views.size import show_size
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import MODELS
from selfevo_contract.sizing.memory import Need, needs
from selfevo_contract.sizing.suggestions import with_settings
from selfevo_contract.spec.lora import Lora
from selfevo_contract.spec.run import RunSpec

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "sizing.md"
COMMAND = "#     selfevo size "
"""How the table in an example's header begins; it ends with the header."""
BEGIN, END = "<!-- sizes: made by tools/gpu_sizing.py -->", "<!-- sizes end -->"


def load(path: Path) -> SelfEvolutionRun:
    return SelfEvolutionRun.model_validate(yaml.safe_load(path.read_text()))


def tables() -> str:
    """Two tables: the settings of the examples, and smaller ones that fit more."""
    spec = load(ROOT / "examples" / "qwen3-4b-base.yaml").spec
    small = with_settings(spec, max_completion_length=1024, per_device_train_batch_size=1)
    adapted = with_settings(spec, lora=Lora(), per_device_train_batch_size=2, gradient_checkpointing=True)
    return "\n".join(
        [
            "",
            "**With the settings of examples/qwen3-4b-base.yaml** (answers of up to 4,096 tokens, 8 GPUs a training):",
            "",
            *_table(spec),
            "",
            "**With `maxCompletionLength: 1024` and `perDeviceTrainBatchSize: 1`**, all else as above:",
            "",
            *_table(small),
            "",
            "**With `lora: {}`** in both roles, `perDeviceTrainBatchSize: 2` and `gradientCheckpointing: true`:",
            "",
            *_table(adapted),
            "",
        ]
    )


def _table(spec: RunSpec) -> Iterator[str]:
    yield "| model | parameters | challenger-train | solver-rollout | solver-train | evaluate |"
    yield "|---|---|---|---|---|---|"
    for name, model in MODELS.items():
        cells = [f"{need.total:,.0f} GiB ({_card(need)})" for need in needs(spec, model)]
        yield f"| {name} | {model.parameters / 1e9:.2f} billion | {' | '.join(cells)} |"


def _card(need: Need) -> str:
    return "**no card**" if need.card == "none" else f"{need.card} card"


def page(text: str) -> str:
    """``text`` with the tables in their place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}{END}{after}"


def examples() -> list[Path]:
    """The manifests with a table in their header."""
    return [path for path in sorted((ROOT / "examples").glob("*.yaml")) if COMMAND in path.read_text()]


def header(path: Path) -> str:
    """The manifest at ``path`` with what the command in its header says today."""
    before, _, rest = path.read_text().partition(COMMAND)
    command, _, rest = rest.partition("\n")
    _, _, after = rest.partition("apiVersion:")
    _, _, card = command.partition(" --card ")
    with redirect_stdout(said := io.StringIO()):
        show_size(path, card or "80", None)
    lines = [f"# {line}".rstrip() for line in said.getvalue().splitlines()]
    return "\n".join([f"{before}{COMMAND}{command}", *lines, f"apiVersion:{after}"])


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    for example in examples():
        example.write_text(header(example))
