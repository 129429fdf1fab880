"""Names that our objects bear in a cluster, in one place: labels, annotations, the container that counts."""

from __future__ import annotations

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "selfevo-operator"
"""The value of `MANAGED_BY` on ours: the selector by which the operator sees no one else's Jobs."""

RUN = "selfevo.dev/run"
STEP = "selfevo.dev/step"
PHASE = "selfevo.dev/phase"
ITERATION = "selfevo.dev/iteration"
ATTEMPT = "selfevo.dev/attempt"

KEY = "selfevo.dev/key"
"""Annotation: the key of the step, too long for a label."""
TEMPLATE = "selfevo.dev/template"
"""Annotation of a Job: what it is apart from its name and attempt (`jobs.template_digest`)."""

QUEUE = "kueue.x-k8s.io/queue-name"
PRIORITY = "kueue.x-k8s.io/priority-class"
MIN_PARALLELISM = "kueue.x-k8s.io/job-min-parallelism"
"""Annotation of a Job: with how few pods at a time it may be admitted where its queue has no room for all."""

TRAINER = "trainer"
"""The container whose exit code and termination message count."""
