"""Addresses that a spec may name: models, data, stores."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from selfevo_contract.rules import Rule, form

_FORMS = {
    "hf": ("hf://[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+(@[A-Za-z0-9_./-]+)?", "hf://<owner>/<model>@<revision>"),
    "s3": (r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\x00-\x20\x7f]*)?", "s3://<bucket>/<prefix>"),
    # file:./x is relative to the manifest, and has a meaning on one machine only
    "file": (r"file:(///[^\x00-\x1f\x7f]+|[^/\x00-\x1f\x7f][^\x00-\x1f\x7f]*)", "file:///<absolute path>"),
}
_CLIMBS = re.compile(r"/[.][.](/|\Z)")
_STAYS = Rule(
    r"self.startsWith('file:') && !self.startsWith('file:///') || !self.matches(r'/[.][.](/|\z)')",
    lambda uri: (uri.startswith("file:") and not uri.startswith("file:///")) or not _CLIMBS.search(uri),
    "write the path without '..'",
)


def _uri(*schemes: str) -> Rule:
    patterns, remedies = zip(*(_FORMS[scheme] for scheme in schemes), strict=True)
    return form("|".join(patterns), " or ".join(remedies))


Endpoint = Annotated[
    str,
    Field(max_length=2048),
    form(r"https?://[^\x00-\x20\x7f/]+/?", "http(s)://<host>:<port>, without a path"),
]
ModelUri = Annotated[str, Field(min_length=1, max_length=2048), _uri("hf", "s3", "file"), _STAYS]
StoreUri = Annotated[str, Field(min_length=1, max_length=2048), _uri("s3", "file"), _STAYS]
