"""What `operator_scale.py` starts beside the operator. Importing it puts the tests' harness on the path."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests"))
