"""Which view a person gets: live in a terminal, a line for each transition elsewhere, nothing when quiet."""

from __future__ import annotations

import os
import sys

from selfevo.views.base import View
from selfevo.views.lines import Lines, Quiet
from selfevo.views.screen import Screen
from selfevo_contract.plan import Plan
from selfevo_contract.run import SelfEvolutionRun


def open_view(run: SelfEvolutionRun, plan: Plan, quiet: bool) -> View:
    """The view that suits where standard output goes."""
    if quiet:
        return Quiet()
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI"):
        return Screen(run, plan)
    return Lines(run)
