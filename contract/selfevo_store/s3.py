"""The object store behind an S3 API: ``s3://bucket/prefix``, on AWS or at an endpoint of one's own.

Credentials come from boto3's own chain: environment, shared files, the pod's identity. boto3 is imported when the first
store is opened, so that a run on a folder does not need it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from selfevo_contract import reasons
from selfevo_contract.artifacts import split_s3
from selfevo_contract.errors import InputError, ServiceError
from selfevo_store.base import Checksum, ObjectInfo, ObjectStore, check_key, in_parallel
from selfevo_store.digests import CHUNK, Digest, HashingReader, write_hashing
from selfevo_store.problems import DRAFT_PREFIX, ObjectNotFound, local_error
from selfevo_store.s3_answers import AnswerCheck
from selfevo_store.s3_parts import PARTS_AT_ONCE, Part, in_larger_pieces, read_ahead
from selfevo_store.s3_problems import Where, error_code, explain, unreachable

MIB = 1 << 20
_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 60
_ATTEMPTS = 4
"""Tries of one request, the first included. What lasts longer is the Job's backoff to wait for."""
_MAX_PARTS = 9000
"""S3 allows 10,000 parts."""
_CONFLICT_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)

R = TypeVar("R")


class _BrokenOff(ServiceError):
    """The answer began well and did not end."""


class S3Store(ObjectStore):
    """Objects below one prefix of a bucket."""

    def __init__(
        self,
        uri: str,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        require_conditional_put: bool = True,
        checksum: Checksum | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        try:
            self.bucket, self.root = split_s3(uri)
        except ValueError as error:
            raise InputError(f"storage.uri: {error}") from None
        super().__init__(
            f"s3://{self.bucket}/{self.root}".rstrip("/"),
            endpoint=endpoint,
            require_conditional_put=require_conditional_put,
            cache_dir=cache_dir,
        )
        self.part_size = 16 * MIB
        """Files of this size or more go up and come down in parts of it. PARTS_AT_ONCE of a file and the one before are
        in memory: 320 MiB when PARALLEL_FILES files are large."""
        self._where = Where(uri=self.uri, endpoint=endpoint, region=region)
        with self._explained(""):
            self._client = _client(endpoint, region, checksum)
            AnswerCheck(self._where.endpoint_field).register(self._client)
            for operation in ("PutObject", "UploadPart"):
                self._client.meta.events.register(f"before-call.s3.{operation}", in_larger_pieces)

    def read_bytes(self, key: str) -> bytes:
        return self._again(lambda: b"".join(self.stream(key)))

    def digest_of(self, key: str) -> Digest:
        return self._again(lambda: super(S3Store, self).digest_of(key))

    def stream(self, key: str) -> Iterator[bytes]:
        with self._explained(key):
            body = self._client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"]
        with self._reading(key, body):
            yield from body.iter_chunks(CHUNK)

    def exists(self, key: str) -> bool:
        try:
            with self._explained(key):
                self._client.head_object(Bucket=self.bucket, Key=self._key(key))
        except ObjectNotFound:
            self._expect_bucket(key)
            return False
        return True

    def list(self, prefix: str) -> list[ObjectInfo]:
        folder = f"{self._key(prefix) if prefix else self.root}/".lstrip("/")
        found: list[ObjectInfo] = []
        with self._explained(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=folder)
            for page in pages:
                for entry in page.get("Contents", []):
                    if not entry["Key"].endswith("/"):  # some tools store a folder as an object without content
                        key = entry["Key"][len(self.root) + 1 if self.root else 0 :]
                        found.append(ObjectInfo(key, entry["Size"]))
        return sorted(found, key=lambda info: info.key)

    def folders(self) -> tuple[str, ...]:
        top = f"{self.root}/".lstrip("/")
        asked = {"Bucket": self.bucket, "Prefix": top, "Delimiter": "/"}
        with self._explained(""):
            pages = self._client.get_paginator("list_objects_v2").paginate(**asked)
            found = [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", [])]
        return tuple(sorted(each[len(top) :].rstrip("/") for each in found))

    def put_bytes(self, key: str, data: bytes) -> None:
        with self._explained(key):
            self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        for pause in _CONFLICT_PAUSES_S:
            stored = self._conditional_put(key, data)
            if stored is not None:
                return stored
            time.sleep(pause)
        raise ServiceError(f"{self.uri_of(key)}: the store reported conflicting writes {len(_CONFLICT_PAUSES_S)} times")

    def upload_file(self, path: Path, key: str) -> Digest:
        try:
            file = path.open("rb")
            size = path.stat().st_size
        except OSError as error:
            raise local_error(error, path) from error
        with file, self._explained(key, path):
            reader = HashingReader(file)
            try:
                self._client.upload_fileobj(reader, self.bucket, self._key(key), Config=self._transfer(size))
            except Exception as error:
                if not self._completed(error, key, reader.digest.size):
                    raise
            return reader.digest

    def download_file(self, key: str, path: Path) -> Digest:
        draft = path.with_name(f"{DRAFT_PREFIX}{secrets.token_hex(8)}")
        try:
            with self._explained(key, path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with draft.open("xb") as file, contextlib.closing(self._parts(key)) as parts:
                    digest = write_hashing(parts, file)
                draft.replace(path)
            return digest
        except ObjectNotFound:
            self._expect_bucket(key)
            raise
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()

    def _parts(self, key: str) -> Generator[bytes]:
        """The object's bytes in their order, the next parts of them on their way meanwhile."""
        first = self._again(lambda: self._part(key, 0))
        yield first.data
        starts = range(len(first.data), first.whole, self.part_size)
        first = first._replace(data=b"")  # it is written by now, and its memory not needed
        yield from read_ahead(lambda start: self._again(lambda: self._part(key, start, first)).data, starts)

    def _part(self, key: str, start: int, first: Part | None = None) -> Part:
        """What lies from ``start`` on, of the same object as ``first``."""
        from botocore.exceptions import ClientError

        asked = {"Range": f"bytes={start}-{start + self.part_size - 1}"}
        if first is not None and first.etag:
            asked["IfMatch"] = first.etag
        with self._explained(key):
            try:
                response = self._client.get_object(Bucket=self.bucket, Key=self._key(key), **asked)
            except ClientError as error:
                code, status = error_code(error)
                beyond = status == 416 or code == "InvalidRange"
                if beyond and first is None:
                    return Part(b"", 0, None)  # an object without bytes has no range of them
                if beyond or status == 412 or code == "PreconditionFailed":
                    raise self._replaced(key) from error
                raise
        with self._reading(key, response["Body"]):
            part = Part.of(response, start, self.part_size, self.uri_of(key))
        if first is not None and part.whole != first.whole:
            raise self._replaced(key)
        return part

    def _replaced(self, key: str) -> ServiceError:
        return ServiceError(
            f"{self.uri_of(key)}: the object was replaced while it was read; try again", reason=reasons.STORE_FAILED
        )

    def _expect_bucket(self, key: str) -> None:
        """The response to HEAD has no body: a missing bucket, or no store at all, seems to be a missing object."""
        with self._explained(""):
            self._client.list_objects_v2(Bucket=self.bucket, Prefix=self._key(key), MaxKeys=1)

    def delete_prefix(self, prefix: str) -> None:
        check_key(prefix)
        # One request each: DeleteObjects is what S3-compatible stores most often lack.
        in_parallel(self._delete, [info.key for info in self.list(prefix)])

    def _delete(self, key: str) -> None:
        with self._explained(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(key))

    def _completed(self, error: Exception, key: str, size: int) -> bool:
        """Whether an upload failed only in learning that it was done.

        The last request of an upload in parts, repeated because its reply was lost, is answered with
        NoSuchUpload by some stores: the upload is an object by now.
        """
        from botocore.exceptions import ClientError

        if not isinstance(error, ClientError) or error_code(error)[0] != "NoSuchUpload":
            return False
        with contextlib.suppress(ClientError):
            head = self._client.head_object(Bucket=self.bucket, Key=self._key(key))
            if head["ContentLength"] == size:
                return True
        raise ServiceError(f"{self.uri_of(key)}: the store lost an upload that was under way; try again") from error

    def _key(self, key: str) -> str:
        return f"{self.root}/{check_key(key)}".lstrip("/")

    def _conditional_put(self, key: str, data: bytes) -> bool | None:
        """True: stored. False: there is an object. None: somebody deleted it meanwhile (409), ask again."""
        from botocore.exceptions import ClientError

        with self._explained(key):
            try:
                self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, IfNoneMatch="*")
            except ClientError as error:
                code, status = error_code(error)
                if status == 412 or code == "PreconditionFailed":
                    return False
                if status == 409 or code == "ConditionalRequestConflict":
                    return None
                if status != 501 and code != "NotImplemented":
                    raise
                if self.require_conditional_put:
                    raise InputError(
                        f"storage.uri {self.uri}: the store does not implement `If-None-Match: *` ({code}), so two "
                        "attempts could overwrite each other; use a store that does, or accept the risk with "
                        "storage.requireConditionalPut: false",
                        reason=reasons.CONDITIONAL_PUT_UNSUPPORTED,
                    ) from error
                self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)
        return True

    def _transfer(self, size: int) -> Any:
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(
            multipart_threshold=self.part_size,
            multipart_chunksize=max(self.part_size, -(-size // _MAX_PARTS)),
            max_concurrency=PARTS_AT_ONCE,
            preferred_transfer_client="classic",  # the same code on every machine, whether or not awscrt is installed
        )
        config.max_in_memory_upload_chunks = PARTS_AT_ONCE
        return config

    def _again(self, read: Callable[[], R]) -> R:
        """botocore repeats requests, but not the reading of a body that broke off."""
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(_BrokenOff):
                return read()
        return read()

    @contextmanager
    def _reading(self, key: str, body: Any) -> Iterator[None]:
        """What goes wrong with a body that has begun is a `_BrokenOff`."""
        try:
            with self._explained(key), contextlib.closing(body):
                yield
        except ServiceError as error:
            raise _BrokenOff(str(error), reason=error.reason) from error

    @contextmanager
    def _explained(self, key: str, local: Path | None = None) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if local is None or isinstance(error, (ConnectionError, TimeoutError)):
                raise unreachable(error, self._where) from error
            raise local_error(error, local) from error
        except Exception as error:
            explained = explain(error, self._where, self.uri_of(key))
            if explained is None:
                raise
            raise explained from error


_SDK_CHECKSUM: dict[Checksum, str] = {"whenRequired": "when_required", "whenSupported": "when_supported"}


def _client(endpoint: str | None, region: str | None, checksum: Checksum | None) -> Any:
    import boto3
    import botocore.session
    from botocore.config import Config

    session = botocore.session.get_session()
    calculation = _SDK_CHECKSUM[checksum] if checksum else None if _checksum_is_configured(session) else "when_required"
    return boto3.session.Session(botocore_session=session).client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        config=Config(
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            max_pool_connections=32,
            tcp_keepalive=True,
            s3={"addressing_style": "path" if endpoint else "auto"},
            # The SDK's default, a CRC in a trailer, is what many S3-compatible stores do not know. Without it the
            # body's sha256 is part of the signature, which every store checks; our own digests check what comes back.
            request_checksum_calculation=calculation,  # None: the SDK's own setting
            response_checksum_validation="when_required",
        ),
    )


def _checksum_is_configured(session: Any) -> bool:
    """Whether environment or profile say when requests carry checksums; botocore mixes it with its own default."""
    name = "request_checksum_calculation"
    return f"AWS_{name.upper()}" in os.environ or name in session.get_scoped_config()
