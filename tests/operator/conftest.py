"""Makes the package `simulation` beside this file importable, here and for benchmarks/simulate.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
