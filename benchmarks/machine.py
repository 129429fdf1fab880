"""What repeats a figure: every result file names its command, machine and commit."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def provenance(device: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The head of a result file: the command, the machine (and its ``device``) and the commit."""
    return {"command": command(), "machine": {**machine(), **(device or {})}, "commit": commit()}


def command() -> str:
    """The benchmark's command line, from the repository's root."""
    script = Path(sys.argv[0]).resolve()
    named = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script
    return shlex.join(["python", str(named), *sys.argv[1:]])


def machine() -> dict[str, Any]:
    """CPU model, usable cores, memory, system, Python and the date, ready for JSON.

    >>> sorted(machine())
    ['cores', 'cpu', 'date', 'memory_gib', 'omp_num_threads', 'python', 'system']
    """
    return {
        "cpu": _cpu_model(),
        "cores": _cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def commit() -> str | None:
    """The commit that runs; in a copy without history, the variable SELFEVO_COMMIT; None where neither says it."""
    if commit := os.environ.get("SELFEVO_COMMIT"):
        return commit
    asked = ["git", "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.check_output(asked, cwd=Path(__file__).parent, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _cores() -> int:
    """Cores that this process may use (macOS cannot say; there it is the cores of the machine)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    """The model's name, and family and model number where the name alone says little (virtual machines)."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    if "model name" not in fields:
        return platform.machine()
    numbers = f"family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}"
    return f"{fields['model name']} ({numbers})"
