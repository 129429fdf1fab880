"""Reasons in one place: CamelCase constants for conditions, attempts, events and errors, so that programs can rely on
them. docs/failures.md has a line for each."""

from __future__ import annotations

# Where a run stands
STARTING = "Starting"
RUNNING = "StepsRunning"
BACKING_OFF = "BackingOff"
SUSPENDED = "Suspended"
COMPLETE = "AllStepsSucceeded"
QUEUED = "Queued"
WAITS_FOR_RUN = "WaitsForRun"
UNSCHEDULABLE = "Unschedulable"
POD_STARTING = "PodStarting"
ENDING = "Ending"
NODE_LOST = "NodeLost"
NO_WORKLOAD = "NoWorkload"
DEACTIVATED = "Deactivated"
PLAN_VERSION = "PlanVersion"
INVALID_SPEC = "InvalidSpec"
NOT_ALLOWED = "NotAllowed"
CREATE_REFUSED = "CreateRefused"
DELETE_REFUSED = "DeleteRefused"
PODS_UNREADABLE = "PodsUnreadable"
NAME_TAKEN = "NameTaken"
PODS_NOT_CREATED = "PodsNotCreated"

# How an attempt ended, where its process left no reason
INVALID_INPUT = "InvalidInput"
BAD_DATA = "BadData"
SERVICE_FAILED = "ServiceFailed"
TERMINATED = "Terminated"
KILLED = "Killed"
CRASHED = "Crashed"
RESULT_LOST = "ResultLost"
LOST = "Lost"
OUT_OF_MEMORY = "OOMKilled"
CONTAINER_FAILED = "ContainerFailed"
DEADLINE_EXCEEDED = "DeadlineExceeded"

# Why a step is given up
BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"

# Why an attempt is stopped
NOT_IN_PLAN = "NotInPlan"
STEP_ENDED = "StepEnded"
SUPERSEDED = "Superseded"
RUN_FAILED = "RunFailed"
OUTDATED = "SpecChanged"

# What a trainer's process ends with
ERROR = "Error"
NOT_BUILT = "NotBuilt"
NO_VALID_QUESTION = "NoValidQuestion"
EMPTY_CURRICULUM = "EmptyCurriculum"
NOT_FINITE = "NotFinite"
OTHER_WEIGHTS_SERVED = "OtherWeightsServed"
GRADER_UNAVAILABLE = "GraderUnavailable"
PROCESS_LOST = "ProcessLost"
PEER_FAILED = "PeerFailed"
PEERS_MISSING = "PeersMissing"

# What is wrong with a store or a disk
BUCKET_NOT_FOUND = "BucketNotFound"
CONDITIONAL_PUT_UNSUPPORTED = "ConditionalPutUnsupported"
CORRUPT_ARTIFACT = "CorruptArtifact"
DISK_FULL = "DiskFull"
FOREIGN_MANIFEST = "ForeignManifest"
MANIFEST_TOO_NEW = "ManifestTooNew"
OBJECT_NOT_FOUND = "ObjectNotFound"
STORE_CREDENTIALS = "StoreCredentials"
STORE_FAILED = "StoreFailed"
STORE_INVALID = "StoreInvalid"
STORE_UNREACHABLE = "StoreUnreachable"

# What the command says
ALREADY_RUNNING = "AlreadyRunning"
NO_LOG = "NoLog"
DELETED = "Deleted"
NOT_INSTALLED = "NotInstalled"
NO_KUBECONFIG = "NoKubeconfig"
UNKNOWN_STATUS = "UnknownStatus"
FORBIDDEN = "Forbidden"
NOT_FOUND = "NotFound"
UNAUTHORIZED = "Unauthorized"
EXPIRED = "Expired"
UNTRUSTED = "Untrusted"
UNREACHABLE = "Unreachable"
