"""Held-out data sets of the hub that `selfevo data prepare` knows: one file each, one line of the registry.

base.py        what an entry is
hub.py         the rows of one, by `datasets`, and errors in one sentence each
prepared.py    rows -> the lines of a file; where the file is put
"""

from __future__ import annotations

from selfevo.data import (
    aime24,
    aime25,
    amc23,
    bbeh,
    gsm8k,
    math500,
    minerva,
    mmlu_pro,
    olympiad,
    supergpqa,
)
from selfevo.data.base import DataSet

DATA_SETS: dict[str, DataSet] = {
    module.DATA_SET.name: module.DATA_SET
    for module in (math500, gsm8k, amc23, aime24, aime25, minerva, olympiad, mmlu_pro, supergpqa, bbeh)
}
"""name -> entry, in the order in which they are listed."""
