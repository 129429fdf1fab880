"""The real controller, cache and queue in a simulated cluster, driven through faults from one seed each.

What is simulated, and which laws hold at every write, is in the package `simulation` beside this file. A failure
replays from its seed: SELFEVO_SIMULATION_SEEDS=17,18 pytest tests/operator/test_simulation.py
"""

from __future__ import annotations

import os

import pytest
from simulation.shapes import FINETUNE_SEEDS, FINETUNED, FORK_SEEDS, FORKS, GUARD_SEEDS, GUARDED, SHAPES
from simulation.system import unchanged
from simulation.world import World, calm, shape_of, simulate

GIVEN = [int(seed) for seed in os.environ.get("SELFEVO_SIMULATION_SEEDS", "").split(",") if seed]
FEW, ALL, PIECES = 6, 200, 10
OF_EACH = 20
"""Of the runs with guards, of those that fork another one, and of those that are fine-tuned."""


def hold(seeds: list[int]) -> None:
    """Every seed keeps the laws and ends as the run without faults does."""
    broken = []
    for seed in seeds:
        try:
            simulate(seed)
        except AssertionError as error:
            broken.append(str(error))
    assert not broken, "\n\n".join(broken)


@pytest.mark.slow
def test_without_faults_every_shape_of_run_comes_to_its_end() -> None:
    for shape in (*SHAPES, *GUARDED, *FORKS, *FINETUNED):
        assert calm(shape, unchanged()).ends


@pytest.mark.slow
def test_a_seed_is_all_that_is_needed_to_live_through_it_again() -> None:
    shape = shape_of(1)
    once, again = (World(1, shape, unchanged(), faulty=True) for _ in range(2))
    assert once.live() == again.live()
    assert once.agenda.now == again.agenda.now


@pytest.mark.slow
def test_a_few_seeds() -> None:
    hold(GIVEN or [*range(FEW), GUARD_SEEDS[0], FORK_SEEDS[0], FINETUNE_SEEDS[0]])


@pytest.mark.slow
@pytest.mark.skipif(bool(GIVEN), reason="SELFEVO_SIMULATION_SEEDS names the seeds")
@pytest.mark.parametrize("piece", range(PIECES))
def test_many_seeds(piece: int) -> None:
    own = [seeds[piece:OF_EACH:PIECES] for seeds in (GUARD_SEEDS, FORK_SEEDS, FINETUNE_SEEDS)]
    hold([*range(FEW + piece, ALL, PIECES), *(seed for seeds in own for seed in seeds)])
