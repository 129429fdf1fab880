"""Whether the model that a judge begins as can read what it will be asked: found before anything is computed."""

from __future__ import annotations

from pathlib import Path

from selfevo_contract.errors import InputError
from selfevo_contract.phases import Loading
from selfevo_trainer.inputs.preflight import EXAMPLE, beyond_embedding, facts_of
from selfevo_trainer.judges.encoding import Encoder


def check_judge(folder: Path, loading: Loading, max_length: int, named: str) -> None:
    """Check the tokenizer and the positions of the model in ``folder``; no weight is read.

    Args:
        max_length: spec.verifier.maxLength.
        named: the field that names the model, and its value.

    Raises:
        InputError: a token is beyond the embedding, as of another model's tokenizer, or ``max_length`` is beyond the
            positions that the model has learned.
    """
    facts = facts_of(folder, loading)
    asked = Encoder(facts.tokenizer, max_length)(EXAMPLE, EXAMPLE)
    if fault := beyond_embedding(facts, asked, "its chat template"):
        raise InputError(f"{named}: {fault}")
    if facts.learned_positions is not None and max_length > facts.learned_positions:
        raise InputError(
            f"{named}, which has learned {facts.learned_positions} positions, and spec.verifier.maxLength is "
            f"{max_length}; lower spec.verifier.maxLength, or name a model that computes its positions"
        )
