"""Reasons in one place: CamelCase constants for conditions, attempts and events, so that programs can rely on them.

A trainer brings reasons of its own along (`selfevo_contract.errors`), such as InvalidInput or EmptyCurriculum.
"""

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

# Why a child is stopped
NOT_IN_PLAN = "NotInPlan"
STEP_ENDED = "StepEnded"
SUPERSEDED = "Superseded"
RUN_FAILED = "RunFailed"
OUTDATED = "SpecChanged"
