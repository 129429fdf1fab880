"""The Solver's answers collapse into one: entropy at the end of its training against where the first one began."""

from __future__ import annotations

from selfevo_core.policies.guards.base import Guard, of_baseline, of_metric, percent

ENTROPY = Guard(
    "entropy",
    of_metric(lambda m: m.get("solver/entropy_last"), of_baseline, lambda m: m.get("solver/entropy_first")),
    lambda reading: (
        f"the Solver's entropy is {reading.value:.3g} nats a token after training, "
        f"{percent(reading.level)} of {reading.at_first:.3g} at first"
    ),
    percent,
    below=True,
)
