"""Answers that no S3 store gives: a sign-in page, a console, a redirect, a web server's 404. Found before boto3 acts
on them, because it takes a page for an empty listing and follows a redirect until the stack ends.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from selfevo_contract import reasons
from selfevo_contract.errors import InputError

_OF_S3 = ("x-amz-", "x-goog-", "x-oss-", "x-obs-", "x-cos-")
"""How headers begin that S3 stores send with every answer."""
_TRANSIENT = (408, 425, 429)
_HAS_ETAG = ("GetObject", "HeadObject", "PutObject", "UploadPart")
_ROOTS = {"ListObjectsV2": b"ListBucketResult", "CreateMultipartUpload": b"InitiateMultipartUploadResult"}
_TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_ENDPOINT = re.compile(rb"<Endpoint>([^<]{1,200})</Endpoint>")
_TAG = re.compile(rb"<[^>]*>")
_MESSAGE_CHARS = 60
"""Characters of a page that a message quotes."""


class AnswerCheck:
    """Checks each response of a client, which it is registered with.

    Args:
        store: The field and the address that a person knows the store by: ``storage.endpoint http://...``.
    """

    def __init__(self, store: str) -> None:
        self._store = store

    def register(self, client: Any) -> None:
        # The parsed answer is of no use: botocore makes a 500, which is tried again, of a 200 that is not XML.
        client.meta.events.register("response-received.s3", self.check)

    def check(self, event_name: str, response_dict: Mapping[str, Any] | None, **_: Any) -> None:
        """Raises InputError when the answer is not an S3 store's. What is raised here ends the request at once."""
        if response_dict is None:
            return
        status = int(response_dict["status_code"])
        headers = {str(name).lower(): str(value) for name, value in response_dict["headers"].items()}
        body = response_dict["body"]
        operation = event_name.rpartition(".")[2]
        if 300 <= status < 400:
            if "x-amz-bucket-region" in headers or (_is_error(body) and b"<Region>" in body):
                return  # botocore asks again there, once
            endpoint = _ENDPOINT.search(body) if _is_error(body) else None
            if endpoint:
                raise InputError(
                    f"{self._store}: redirects ({status}) to {_place(endpoint[1].decode('utf-8', 'replace'))}; set "
                    "storage.region to the bucket's, or storage.endpoint to that address",
                    reason=reasons.STORE_INVALID,
                )
            raise self._foreign(f"redirects ({status}) to {_place(headers.get('location'))}", status)
        if status < 300:
            if _foreign_success(operation, headers, body):
                raise self._foreign(f"answers {status} with {_described(body, headers)}", status)
        elif status < 500 and status not in _TRANSIENT and not operation.startswith("Head"):
            nothing = not body.strip()
            if not _is_error(body) and not (nothing and (status != 404 or _of_s3(headers))):
                raise self._foreign(f"answers {status} with {_described(body, headers)}", status)

    def _foreign(self, what: str, status: int) -> InputError:
        if status == 413:
            why = "so a proxy in front of the store takes no requests of this size; raise its limit or go around it"
        else:
            why = (
                "as no S3 store does; give the address of the store's S3 API (a sign-in page, a console or a proxy is "
                "what answers here)"
            )
        return InputError(f"{self._store}: {what}, {why}", reason=reasons.STORE_INVALID)


def _foreign_success(operation: str, headers: Mapping[str, str], body: Any) -> bool:
    if _of_s3(headers):
        return False
    if "text/html" in headers.get("content-type", "").lower():
        return True
    if operation in _HAS_ETAG:
        return "etag" not in headers
    root = _ROOTS.get(operation)
    return root is not None and root not in body and not _is_error(body)


def _of_s3(headers: Mapping[str, str]) -> bool:
    return any(name.startswith(_OF_S3) for name in headers)


def _is_error(body: Any) -> bool:
    """Whether ``body`` is S3's XML for an error."""
    return isinstance(body, bytes) and re.search(rb"<(\w+:)?Error[\s>]", body[:1024]) is not None


def _place(location: str | None) -> str:
    return f"{location[:200]!r}" if location else "a place that it does not name"


def _described(body: Any, headers: Mapping[str, str]) -> str:
    """``a web page ('Sign in')``, ``an empty body``, ``application/json ('{"error": ...}')``."""
    data = body if isinstance(body, bytes) else body.read(4096)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    page = kind == "text/html" or data.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))
    title = _TITLE.search(data) if page else None
    text = title[1] if title else _TAG.sub(b" ", data)
    message = " ".join(html.unescape(text.decode("utf-8", "replace")).split())
    if not data.strip() and not page:  # the answer to HEAD has a kind and no body
        return "an empty body"
    shown = message if len(message) <= _MESSAGE_CHARS else message[: _MESSAGE_CHARS - 3] + "..."
    return ("a web page" if page else kind or "a body") + (f" ({shown!r})" if shown else "")
