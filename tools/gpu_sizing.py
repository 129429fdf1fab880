"""The tables of docs/sizing.md and in the headers of examples/, made anew by the formulas (`selfevo_contract.sizing`).

    python tools/gpu_sizing.py

`selfevo size RUN.yaml` works a manifest out.
"""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import yaml

from selfevo.views.hours import amount, estimated
from selfevo.views.size import show_size
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import MODELS, Architecture, known
from selfevo_contract.sizing.fit import checkpoint_bytes
from selfevo_contract.sizing.hours import Lengths
from selfevo_contract.sizing.memory import Need, needs
from selfevo_contract.sizing.speeds import ASSUMED, OF_JUDGES, SPEEDS
from selfevo_contract.sizing.suggestions import with_settings
from selfevo_contract.sizing.traffic import checkpoints
from selfevo_contract.sizing.weights import model_bytes
from selfevo_contract.spec.lora import Lora
from selfevo_contract.spec.run import RunSpec

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from runs import by_transformers  # noqa: E402

PAGE = ROOT / "docs" / "sizing.md"
COMMAND = "#     selfevo size "
"""How the table in an example's header begins; it ends with the header."""
COLUMNS = 118


def load(path: Path) -> SelfEvolutionRun:
    return SelfEvolutionRun.model_validate(yaml.safe_load(path.read_text()))


def tables() -> str:
    """The settings of the examples; and by transformers, what becomes of them without sharding, with shorter answers,
    with adapters."""
    served = load(ROOT / "examples" / "qwen3-4b-base.yaml").spec
    spec = SelfEvolutionRun.model_validate(by_transformers("qwen3-4b-base")).spec
    alone = with_settings(spec, sharding=None)
    small = with_settings(spec, max_completion_length=1024, per_device_train_batch_size=1)
    adapted = with_settings(alone, lora=Lora(), per_device_train_batch_size=2, gradient_checkpointing=True)
    return "\n".join(
        [
            "",
            "**With the settings of examples/qwen3-4b-base.yaml** (answers of up to 4,096 tokens; 4 GPUs train and "
            "share the model, `sharding: fsdp`; vLLM writes all texts, on GPUs of its own or where nothing trains, and "
            "its weights and one sequence are counted):",
            "",
            *_table(served),
            "",
            "**All texts by transformers**, in the trainer's processes (8 GPUs a training, `sharding: fsdp`):",
            "",
            *_table(spec),
            "",
            "**By transformers without `sharding`**, all else as above:",
            "",
            *_table(alone),
            "",
            "**By transformers with `maxCompletionLength: 1024`, `perDeviceTrainBatchSize: 1`** and `sharding: fsdp`:",
            "",
            *_table(small),
            "",
            "**By transformers with `lora: {}`**, `perDeviceTrainBatchSize: 2` and `gradientCheckpointing: true`, "
            "without `sharding`:",
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


def hours() -> str:
    """What an iteration of the examples takes, and the figures that it is worked out by."""
    rows = [
        "",
        "| example | card | challenger-train | solver-rollout | solver-train | evaluate | an iteration | generated |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in examples():
        spec, card = load(path).spec, f"{_asked(path)} GB"
        rows += _hours_row(path.stem, spec, card)
        if path.stem in ("qwen3-4b-base", "qwen3-4b-lora"):
            other = SelfEvolutionRun.model_validate(by_transformers(path.stem)).spec
            rows += _hours_row("the same by transformers", other, card)
    rows += ["", "| figure | value | | from |", "|---|---|---|---|"]
    every = [*(it for card in SPEEDS.values() for it in (card.tflops, card.bandwidth)), *ASSUMED, *OF_JUDGES]
    rows += [f"| {it.what} | {it.value:,.4g} {it.unit} | {it.origin} | {it.source} |" for it in every]
    return "\n".join([*rows, ""])


def _hours_row(name: str, spec: RunSpec, card: str) -> Iterator[str]:
    model = known(spec.model.uri)
    assert model is not None, f"{name} has a model of unknown sizes"
    whole = estimated(spec, model, card, Lengths())
    if whole is not None:
        last = [one for one in whole.took if one.step.iteration == spec.iterations]
        cells = [f"{amount(one.hours)} h x {one.gpus}" for one in last]
        gpu_hours, tokens = sum(one.gpu_hours for one in last), sum(one.tokens for one in last) / 1e6
        yield (
            f"| {name} | {card} | {' | '.join(cells)} | {amount(gpu_hours)} GPU hours "
            f"| {amount(tokens)} million tokens |"
        )


def store() -> str:
    """What an iteration with the settings of qwen3-4b-base writes."""
    spec = load(ROOT / "examples" / "qwen3-4b-base.yaml").spec
    roles = (spec.challenger.grpo, spec.solver.grpo)
    rows = [
        "",
        "| model | a checkpoint | a model | written in an iteration, `checkpointEvery: 1` | `checkpointEvery: 5` |"
        " with `lora: {}`, `checkpointEvery: 1` |",
        "|---|---|---|---|---|---|",
    ]
    for name, model in MODELS.items():

        def written(every: int, lora: Lora | None = None, model: Architecture = model) -> str:
            trained = [grpo.model_copy(update={"lora": lora}) for grpo in roles]
            total = sum(checkpoints(it, every) * checkpoint_bytes(it, model) + model_bytes(it, model) for it in trained)
            return f"{amount(total / 1e9)} GB"

        sizes = [checkpoint_bytes(roles[0], model), model_bytes(roles[0], model)]
        cells = [*(f"{amount(size / 1e9)} GB" for size in sizes), written(1), written(5), written(1, Lora())]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*rows, ""])


BLOCKS = {"sizes": tables, "hours": hours, "traffic": store}
"""What stands between a page's lines `<!-- NAME: made by tools/gpu_sizing.py -->` and `<!-- NAME end -->`."""


def page(text: str) -> str:
    """``text`` with the tables in their place."""
    for name, made in BLOCKS.items():
        begin, end = f"<!-- {name}: made by tools/gpu_sizing.py -->", f"<!-- {name} end -->"
        before, _, rest = text.partition(begin)
        inside, _, after = rest.partition(end)
        assert inside, f"{begin} and {end} are not on the page"
        text = f"{before}{begin}\n{made()}{end}{after}"
    return text


def examples() -> list[Path]:
    """The manifests with a table in their header."""
    return [path for path in sorted((ROOT / "examples").glob("*.yaml")) if COMMAND in path.read_text()]


def _asked(path: Path) -> str:
    """The card, in GB, that the command in the manifest's header names."""
    command = path.read_text().partition(COMMAND)[2].partition("\n")[0]
    return command.partition(" --card ")[2] or "80"


def _folded(line: str) -> list[str]:
    """``line`` as a comment has room for it."""
    return [line] if len(line) <= COLUMNS else textwrap.wrap(line, COLUMNS, subsequent_indent="  ")


def header(path: Path) -> str:
    """The manifest at ``path`` with what the command in its header says today."""
    before, _, rest = path.read_text().partition(COMMAND)
    command, _, rest = rest.partition("\n")
    _, _, after = rest.partition("apiVersion:")
    with redirect_stdout(output := io.StringIO()):
        show_size(path, _asked(path), None)
    shown = [part for line in output.getvalue().splitlines() for part in _folded(line)]
    lines = [f"# {line}".rstrip() for line in shown]
    return "\n".join([f"{before}{COMMAND}{command}", *lines, f"apiVersion:{after}"])


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    for example in examples():
        example.write_text(header(example))
