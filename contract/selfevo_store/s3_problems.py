"""What boto3 raises, as one sentence: the field and its value, why, and the remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from selfevo_contract import reasons
from selfevo_contract.errors import InputError, SelfevoError, ServiceError
from selfevo_store.problems import (
    ObjectNotFound,
)

_CHECK_KEYS = (
    "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
    "(in a cluster: in the Secret that storage.credentialsSecret names)"
)
_WRONG_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "XAdminUserNotFound"}  # the last is versitygw's
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "RequestExpired"}
_WRONG_REGION = {
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "TemporaryRedirect",
    "IllegalLocationConstraintException",
    "301",
    "307",
}
_WANTS_CHECKSUM = re.compile("content-md5|x-amz-checksum", re.IGNORECASE)
_FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "EntityTooLargeQuota", "507"}


@dataclass(frozen=True)
class Where:
    """The fields that a message may have to name."""

    uri: str
    endpoint: str | None
    region: str | None

    @property
    def endpoint_field(self) -> str:
        return (
            f"storage.endpoint {self.endpoint}" if self.endpoint else "the AWS endpoint (storage.endpoint is not set)"
        )


def error_code(error: Any) -> tuple[str, int]:
    """Code and HTTP status of a botocore ClientError; "" and 0 where the store gave none."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return code, int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def explain(error: Exception, where: Where, uri: str) -> SelfevoError | None:
    """The error to raise for ``error``, which came up about the object at ``uri``; None: it is not boto3's."""
    from botocore.exceptions import BotoCoreError, ClientError
    from s3transfer.exceptions import RetriesExceededError

    if isinstance(error, RetriesExceededError):
        last = error.last_exception
        return explain(last, where, uri) or ServiceError(
            f"{uri}: the transfer broke off ({last})", reason=reasons.STORE_FAILED
        )
    if isinstance(error, ClientError):
        return _answered(error, where, uri)
    if isinstance(error, BotoCoreError):
        return _unanswered(error, where, uri)
    if isinstance(error, ValueError) and "endpoint" in str(error).lower():
        return InputError(f"{where.endpoint_field}: not an address; give https://host or https://host:port")
    return None


def unreachable(error: Exception, where: Where) -> ServiceError:
    """No connection, or one that broke off."""
    return ServiceError(
        f"{where.endpoint_field}: not reachable ({_root_cause(error)}); "
        "check the address, the network policy and whether the store runs",
        reason=reasons.STORE_UNREACHABLE,
    )


def _root_cause(error: BaseException) -> str:
    """What the operating system reports, e.g. "Connection refused"; else what botocore says, without the long URL."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split()).partition(" on endpoint URL")[0].partition(' "http')[0].rstrip(".:")


def _answered(error: Any, where: Where, uri: str) -> SelfevoError:
    """The store refuses."""
    code, status = error_code(error)
    message = str(error.response.get("Error", {}).get("Message", "")).rstrip(".") or "no message"
    store = f"storage.uri {where.uri}"
    if code == "NoSuchBucket":
        bucket = where.uri.removeprefix("s3://").partition("/")[0]
        return InputError(
            f"{store}: there is no bucket {bucket!r} at {where.endpoint or 'AWS'}; create it or correct storage.uri",
            reason=reasons.BUCKET_NOT_FOUND,
        )
    if code in ("NoSuchKey", "404", "NotFound"):
        return ObjectNotFound(f"{uri}: there is no such object")
    if code in _WRONG_CREDENTIALS:
        return InputError(
            f"{store}: the store refused the credentials ({code}); {_CHECK_KEYS}", reason=reasons.STORE_CREDENTIALS
        )
    if code in _EXPIRED:
        return InputError(
            f"{store}: the credentials have expired ({code}); renew them and {_CHECK_KEYS}",
            reason=reasons.STORE_CREDENTIALS,
        )
    if code == "RequestTimeTooSkewed":
        return ServiceError(
            f"{store}: this machine's clock differs too much from the store's; set the node's clock",
            reason=reasons.STORE_FAILED,
        )
    if code in _WRONG_REGION:
        region = f"storage.region {where.region}" if where.region else "storage.region, which is not set,"
        return InputError(
            f"{store}: {region} is not the bucket's ({code}: {message}); set storage.region",
            reason=reasons.STORE_INVALID,
        )
    if status in (401, 403) or code in ("AccessDenied", "403"):
        return InputError(
            f"{store}: access to {uri} is denied ({code or status}); allow s3:GetObject, s3:PutObject, s3:DeleteObject "
            "and s3:ListBucket to the pod's identity or to the credentials in use, or " + _CHECK_KEYS,
            reason=reasons.STORE_CREDENTIALS,
        )
    if code in _FULL or status == 507:
        return ServiceError(f"{store}: the store is full ({code}); free space there", reason=reasons.DISK_FULL)
    if status == 400 and _WANTS_CHECKSUM.search(message):
        return InputError(
            f"{store}: the store takes no upload without a checksum ({code}: {message}), as a bucket with Object Lock "
            "does; set storage.checksum: whenSupported",
            reason=reasons.STORE_INVALID,
        )
    if 400 <= status < 500 and status not in (408, 425, 429):
        return InputError(
            f"{store}: the store refused a request about {uri} ({code}: {message}); see its log",
            reason=reasons.STORE_INVALID,
        )
    return ServiceError(
        f"{store}: the store failed on {uri} ({code or status}: {message}); try again later",
        reason=reasons.STORE_FAILED,
    )


def _unanswered(error: Exception, where: Where, uri: str) -> SelfevoError:
    """Nobody answered, or nobody could be asked."""
    from botocore import exceptions as b

    store = f"storage.uri {where.uri}"
    why = " ".join(str(error).split())
    if isinstance(error, b.NoCredentialsError):
        return InputError(
            f"{store}: no credentials found; set storage.credentialsSecret, or give the pod an identity, or set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
            reason=reasons.STORE_CREDENTIALS,
        )
    if isinstance(error, (b.PartialCredentialsError, b.ProfileNotFound, b.ConfigNotFound, b.ConfigParseError)):
        return InputError(
            f"{store}: the credentials are incomplete ({why}); {_CHECK_KEYS}", reason=reasons.STORE_CREDENTIALS
        )
    if isinstance(error, b.SSLError):
        return InputError(
            f"{where.endpoint_field}: the TLS certificate was not accepted ({why}); set AWS_CA_BUNDLE to the "
            "authority's certificate (on a cluster: spec.pods.caBundle) or correct storage.endpoint",
            reason=reasons.STORE_UNREACHABLE,
        )
    if isinstance(error, (b.HTTPClientError, b.EndpointConnectionError, b.ConnectionError)):
        return unreachable(error, where)
    if isinstance(error, b.InvalidChecksumConfigError):
        return InputError(f"{store}: {why}; correct the variable or set storage.checksum", reason=reasons.STORE_INVALID)
    if isinstance(error, (b.ParamValidationError, b.InvalidRegionError, b.NoRegionError)):
        return InputError(f"{store}: {why}; correct storage.uri or storage.region", reason=reasons.STORE_INVALID)
    return ServiceError(f"{store}: {why}; the request about {uri} can be tried again", reason=reasons.STORE_FAILED)
