"""Wrong variants of the operator: the simulation must catch every one of them, and pass the operator as it is."""

from __future__ import annotations

import os

import pytest
from simulation import caught
from simulation.mutants import MUTANTS, Mutant
from simulation.shapes import FINETUNE_SEEDS, FINETUNED, FORK_SEEDS, FORKS, GUARD_SEEDS, GUARDED
from simulation.system import PatchError, changed, patched
from simulation.world import simulate

SEEDS = 200
"""In which a mutant must break a law; the operator as it is passes them in test_simulation.py."""


def test_there_are_at_least_twenty_and_none_twice() -> None:
    assert len(MUTANTS) >= 20
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(mutant.module, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


def test_a_change_that_does_not_fit_the_source_any_more_is_an_error() -> None:
    with pytest.raises(PatchError, match="it must be there once"):
        changed("selfevo_core.reconcile", "what was never written", "")


def test_every_mutant_fits_the_source() -> None:
    for mutant in MUTANTS:
        origin, source = patched(mutant.module, mutant.old, mutant.new)
        compile(source, origin, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_is_caught(mutant: Mutant) -> None:
    system = changed(mutant.module, mutant.old, mutant.new)
    own = (*GUARD_SEEDS[: len(GUARDED)], *FORK_SEEDS[: len(FORKS)], *FINETUNE_SEEDS[: len(FINETUNED)])
    known = caught.seeds().get(mutant.name)
    for seed in (*([] if known is None else [known]), *own, *range(SEEDS)):
        try:
            simulate(seed, system)
        except AssertionError:
            if os.environ.get("SELFEVO_UPDATE_CAUGHT"):
                caught.remember(mutant.name, seed)
            return
    pytest.fail(f"{SEEDS} seeds did not find that {mutant.name}")
