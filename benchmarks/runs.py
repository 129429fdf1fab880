"""The demo's manifest with other settings, for benchmarks and tests: what is not overridden is what people run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from selfevo_contract.digests import file_digest, model_digest
from selfevo_contract.run import SelfEvolutionRun

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def merged(base: Any, over: Any) -> Any:
    """``over`` laid over ``base``: mappings are merged, everything else is replaced, None removes."""
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    both = {name: merged(base.get(name), over[name]) if name in over else base[name] for name in {**base, **over}}
    return {name: value for name, value in both.items() if value is not None}


def arithmetic(over: Mapping[str, Any], *, store: Path, name: str = "arithmetic") -> SelfEvolutionRun:
    """examples/arithmetic.yaml with ``over`` laid over its spec, its files named absolutely, its store at ``store``."""
    document = yaml.safe_load((EXAMPLES / "arithmetic.yaml").read_text())
    base, heldout = EXAMPLES / "arithmetic" / "base", EXAMPLES / "arithmetic" / "heldout.jsonl"
    data = {"uri": heldout.as_uri(), "digest": file_digest(heldout)}
    files = {
        "model": {"uri": base.as_uri(), "digest": model_digest(base)},
        "storage": {"uri": store.absolute().as_uri()},
        "evaluation": {"tasks": [{"name": "arithmetic", "data": data}]},
        "exclude": [data],
    }
    document["metadata"]["name"] = name
    document["spec"] = merged(merged(document["spec"], files), over)
    return SelfEvolutionRun.model_validate(document)
