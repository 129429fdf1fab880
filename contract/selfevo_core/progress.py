"""How far a running step is, from what its processes report. Pure; no decision hangs on it.

What a process says may be anything: numbers are held in bounds, and of words only plain characters are kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from selfevo_contract.process import Progress
from selfevo_contract.status import StepProgress
from selfevo_core.attempts import stamp

_MOST = 10**12
_LONGEST_S = 10 * 365 * 86400.0
_WORDS = 60
_METRICS = 8
_METRIC = re.compile(r"[A-Za-z0-9_/.-]{1,40}")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 ,.:()/%+-]+")


def progress_of(reports: Sequence[Progress], at: datetime, processes: int = 1) -> StepProgress | None:
    """The newest ``reports`` of a step's processes, one each, as one.

    Args:
        at: when the newest of them was made.
        processes: how many share the step; those that are not heard of have done nothing yet of an equal share.

    Returns:
        None when nothing was reported.
    """
    if not reports:
        return None
    done, total = (sum(_within(of, _MOST) for of in numbers) for numbers in _counts(reports))
    unheard = max(0, processes - len(reports))
    total = round(total * (1 + unheard / len(reports)))
    done = min(done, total) if total else done
    speeds = [speed for r in reports if (speed := _finite(r.tokens_per_second, 1e9)) is not None]
    shares = [(r, share) for r in reports if (share := _finite(r.truncated_share, 1.0)) is not None]
    weight = sum(max(1, r.done) for r, _ in shares)
    left = [seconds for r in reports if (seconds := _finite(r.seconds_left, _LONGEST_S)) is not None]
    return StepProgress(
        doing=_NOT_PLAIN.sub("", reports[-1].doing)[:_WORDS].strip(),
        done=done,
        total=total,
        percent=100 * done // total if total else None,
        tokens_per_second=round(sum(speeds), 1) if speeds else None,
        truncated_share=round(sum(max(1, r.done) * s for r, s in shares) / weight, 4) if shares else None,
        ends_at=_second(at + timedelta(seconds=max(left))) if left and not unheard else None,
        metrics=_metrics(reports[-1].metrics),
        at=_second(at),
    )


def _counts(reports: Sequence[Progress]) -> tuple[list[int], list[int]]:
    return [report.done for report in reports], [report.total for report in reports]


def _metrics(reported: Mapping[str, float]) -> dict[str, float] | None:
    """Of what the newest report says, what is a figure with a name, in few digits: its status is written often."""
    known = [(name, value) for name, value in reported.items() if _METRIC.fullmatch(name) and math.isfinite(value)]
    found = {name: float(f"{min(max(value, -_MOST), _MOST):.4g}") for name, value in known[:_METRICS]}
    return found or None


def _within(number: int, most: int) -> int:
    return min(max(number, 0), most)


def _finite(number: float | None, most: float) -> float | None:
    """``number`` from 0 to ``most``; None where there is none."""
    return None if number is None or not math.isfinite(number) else min(max(number, 0.0), most)


def _second(moment: datetime) -> str:
    return stamp(moment.replace(microsecond=0)) or ""
