"""What `selfevo size` prints: each phase's memory on one GPU, about how long it takes, and what would make it fit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from selfevo.manifest import load
from selfevo.text import aligned
from selfevo.views.hours import hours_table
from selfevo.views.judge import judge_table
from selfevo.views.uploads import publish_lines
from selfevo_contract.errors import ExitCode, InputError
from selfevo_contract.sizing.architecture import KINDS, Architecture, known
from selfevo_contract.sizing.fit import in_cpu_of_pod
from selfevo_contract.sizing.grace import grace_lines
from selfevo_contract.sizing.layout import layout_lines
from selfevo_contract.sizing.memory import CARDS, GIB, Need, needs
from selfevo_contract.sizing.servers import Served, served
from selfevo_contract.sizing.suggestions import suggestions
from selfevo_contract.spec.run import RunSpec


def show_size(
    manifest: Path,
    card: str,
    config: Path | None,
    answer_tokens: int | None = None,
    figures: bool = False,
    name: str | None = None,
) -> ExitCode:
    """Print it; the exit code is 2 when a phase does not fit.

    Args:
        card: memory of the GPU in GB, one of CARDS.
        config: the model's config.json where its folder is not on this machine.
        answer_tokens: length of a completion on average; None for a guess.
        figures: say which figures the hours go by, and whose they are.
        name: which run is meant, where the manifest holds several.

    Raises:
        InputError: the manifest, the card or the model's configuration is not one.
    """
    named = f"{card.removesuffix('GB').strip()} GB"
    if named not in CARDS:
        raise InputError(f"--card is {card!r}; it must be one of {', '.join(name.split()[0] for name in CARDS)}")
    spec = load(manifest, name=name).spec
    model = architecture(spec.model.uri, config)
    found = list(needs(spec, model))
    print(f"{model.parameters / 1e9:.2f} billion parameters, on cards of {named} ({CARDS[named]:.0f} GiB of use)")
    for line in layout_lines(spec):
        print(line)
    servers = list(served(spec, model))
    rows = [["phase", "GPUs", "GiB each", "held", "backward", "generating", "smallest card"], *map(_row, found)]
    print(*aligned(rows, right=(1, 2, 3, 4, 5)), sep="\n")
    for line in _beside(spec, found, servers):
        print(line)
    print(*hours_table(spec, model, named, answer_tokens, figures), sep="\n")
    for line in (*publish_lines(spec, model), *judge_table(spec, answer_tokens, figures), *grace_lines(spec, model)):
        print(line)
    small = [server for server in servers if not server.fits(CARDS[named])]
    for server in small:
        print(f"{server.phase}'s server of the {server.whose} does not fit: raise {server.field}")
    if not small and all(need.total <= CARDS[named] for need in found):
        print("every phase fits")
        return ExitCode.DONE
    for line in _advice(spec, model, named, found):
        print(line)
    return ExitCode.INPUT


def _advice(spec: RunSpec, model: Architecture, card: str, found: Sequence[Need]) -> Iterator[str]:
    """What would make ``found`` fit, one setting after another, and what does not fit with all of them."""
    for suggestion in suggestions(spec, model, card):
        before, found = {need.phase: need for need in found}, suggestion.needs
        smaller = [need for need in found if need.total < before[need.phase].total]
        after = ", ".join(f"{need.phase} {need.total:.1f} GiB" for need in smaller) or "less only with what follows"
        end = "; every phase fits" if all(need.total <= CARDS[card] for need in found) else ""
        yield f"with {suggestion.written} in {_and(suggestion.places)}: {after}{end}"
    for need in found:
        if need.total <= CARDS[card]:
            continue
        larger = f"{need.phase} takes {need.total:.1f} GiB, and no setting of these makes it fit: take larger GPUs"
        if need.backward:
            yield f"{larger} or more of them, lower maxCompletionLength, or take a smaller model"
        else:
            yield f"{larger}, a smaller model, or an engine that splits it over several GPUs (kind vllm or server)"


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _beside(spec: RunSpec, found: Sequence[Need], servers: Sequence[Served]) -> Iterator[str]:
    """What a phase takes beside its GPUs."""
    for need in found:
        if need.in_cpu:
            pod = in_cpu_of_pod(spec, need) / GIB
            yield (
                f"{need.phase} keeps {pod:.0f} GiB in the CPU memory of each pod (cpuOffload); a token's hours have "
                "the copies from there in them, a pass's and AdamW's on the CPU are not counted"
            )
    for server in servers:
        if gpus := server.settings.gpus_in_all:
            yield (
                f"{server.phase} has {gpus} GPU{'s' * (gpus > 1)} more in its pod for the {server.whose}'s server, "
                f"which takes {server.gib:.1f} GiB of each at least, and {server.share:.0%} of its memory in all"
            )


def _row(need: Need) -> list[str]:
    parts = [f"{part / GIB:.1f}" for part in (need.held, need.backward, need.generation)]
    return [need.phase, str(need.gpus), f"{need.total:.1f}", *parts, need.card]


def architecture(uri: str, config: Path | None) -> Architecture:
    """Of --config, of the model's own folder, or of a name that is known."""
    if config is None and uri.startswith("file://"):
        config = Path(unquote(uri.removeprefix("file://"))) / "config.json"
    if config is None:
        model = known(uri)
        if model is None:
            raise InputError(
                f"spec.model.uri is {uri!r}, whose sizes are not known here; give its config.json by --config"
            )
        return model
    try:
        content: Any = json.loads(config.read_bytes())
    except OSError as error:
        raise InputError(
            f"{config} cannot be read: {error.strerror}; give the model's config.json by --config"
        ) from None
    except (ValueError, RecursionError):
        raise InputError(f"{config} is not JSON; give the model's config.json by --config") from None
    if not isinstance(content, Mapping):
        raise InputError(f"{config} is not a JSON object; give the model's config.json by --config")
    kind = content.get("model_type")
    if kind in KINDS:
        return Architecture.of(content)
    if any(find_spec(library) is None for library in ("torch", "transformers")):
        raise InputError(
            f"{config} has model_type {kind!r}; without transformers only {', '.join(KINDS)} are worked out: install "
            "selfevo[trainer], with which the model of any architecture that transformers knows is counted"
        )
    from selfevo_trainer.models.counting import of_content

    return of_content(content)
