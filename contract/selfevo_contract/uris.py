"""Addresses that a spec may name: models, data, stores."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from selfevo_contract.rules import Rule, form

_FORMS = {
    "hf": ("hf://[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+(@[A-Za-z0-9_./-]+)?", "hf://<owner>/<model>@<revision>"),
    "s3": (r"s3://[A-Za-z0-9][A-Za-z0-9._:-]*(/[^\x00-\x20\x7f]*)?", "s3://<bucket>/<prefix>"),
    "repository": ("hf://[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+", "hf://<owner>/<name>"),
    # file:./x is relative to the manifest, and has a meaning on one machine only
    "file": (r"file:(///[^\x00-\x1f\x7f]+|[^/\x00-\x1f\x7f][^\x00-\x1f\x7f]*)", "file:///<absolute path>"),
}
_BUCKET = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/|$)"
_STRICT_BUCKET = re.compile(_BUCKET)
_BUCKET_REMEDY = "choose a bucket with 3 to 63 of a-z, 0-9, '.' and '-', with a letter or digit at both ends"


def _why_no_bucket(uri: str) -> str:
    """Where the bucket's name is legal, and why it is not here."""
    name = uri.removeprefix("s3://").partition("/")[0]
    if ":" in name:
        where = "a tenant or an ARN before ':' is Ceph's or AWS's own way to name a bucket"
    elif name != name.lower():
        where = "capitals are legal in buckets that AWS made in us-east-1 before March 2018, and in some Ceph stores"
    elif "_" in name:
        where = "'_' is legal at Google Cloud Storage, in some Ceph stores, and in AWS's us-east-1 before March 2018"
    elif len(name) > 63:
        where = f"{len(name)} characters are legal at Google Cloud Storage in names with dots"
    else:
        return f"{name!r} is no bucket's name at any S3 store of today; {_BUCKET_REMEDY}"
    return f"{where}, and not at S3 stores of today, whose host names hold the bucket's; {_BUCKET_REMEDY}"


_LEGAL_BUCKET = Rule(
    f"!self.startsWith('s3://') || self.matches(r'^{_BUCKET}')",
    lambda uri: not uri.startswith("s3://") or _STRICT_BUCKET.match(uri) is not None,
    f"some stores take such a bucket's name, S3 stores of today do not; {_BUCKET_REMEDY}",
    _why_no_bucket,
)
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
ModelUri = Annotated[str, Field(min_length=1, max_length=2048), _uri("hf", "s3", "file"), _LEGAL_BUCKET, _STAYS]
StoreUri = Annotated[str, Field(min_length=1, max_length=2048), _uri("s3", "file"), _LEGAL_BUCKET, _STAYS]
PublishUri = Annotated[
    str, Field(min_length=1, max_length=2048), _uri("repository", "s3", "file"), _LEGAL_BUCKET, _STAYS
]
