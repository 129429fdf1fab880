"""Wrong variants of the operator, each one small change in its source: the laws must find every one of them.

A change that does not fit the source any more is an error (`simulation.system.PatchError`): write it anew.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """``old`` in ``module`` (its full name) becomes ``new``."""

    name: str
    module: str
    old: str
    new: str


MUTANTS = (
    # --- which attempt, which name
    Mutant(
        "the next attempt is the newest plus one",
        "selfevo_core.reconcile",
        "number = steps[step.name].ended + 1",
        "number = steps[step.name].attempts + 1",
    ),
    Mutant(
        "every attempt is the first one",
        "selfevo_core.reconcile",
        "number = steps[step.name].ended + 1",
        "number = 1",
    ),
    Mutant(
        "the next attempt starts before the end of the last one is recorded",
        "selfevo_core.policies.record_first",
        "if state.steps[step.name].ended > recorded.get((step.name, step.key), 0)]",
        "if False]",
    ),
    Mutant(
        "names differ from reconcile to reconcile",
        "selfevo_core.reconcile",
        "_starts(run.metadata.name, state",
        "_starts(run.metadata.name + format(int(now.timestamp()) % 7), state",
    ),
    Mutant(
        "what an attempt reported of its progress outlives it",
        "selfevo_core.observe",
        'progress=progress if state == "Running" else None',
        "progress=progress",
    ),
    # --- what a person approves
    Mutant(
        "an iteration is approved with the one before it",
        "selfevo_core.policies.review",
        "if number > (spec.approved_iteration or 0)), None)",
        "if number > (spec.approved_iteration or 0) + 1), None)",
    ),
    # --- what is used
    Mutant(
        "what is counted once is counted again",
        "selfevo_core.usage",
        "begin, end = max(begin or since, since), min(end, now)",
        "begin, end = begin or since, min(end, now)",
    ),
    Mutant(
        "what was used before is forgotten when the budget is used up",
        "selfevo_core.usage",
        "wall = (known.wall_hours if known else 0.0) + _covered(stretches)",
        "wall = _covered(stretches)",
    ),
    # --- when a step may start
    Mutant(
        "parents are not waited for",
        "selfevo_core.policies.base",
        "return [step for step in pending if self.parents_done(step)]",
        "return pending",
    ),
    Mutant(
        "a missing Job means that the step is done",
        "selfevo_core.transitions",
        '("Running", Event.GONE): "Pending",',
        '("Running", Event.GONE): "Succeeded",',
    ),
    Mutant(
        "the back-off is ignored",
        "selfevo_core.policies.retry",
        "if until is not None and until > now",
        "if False",
    ),
    Mutant(
        "a Job that is being deleted takes no slot",
        "selfevo_core.reconcile",
        "slots = state.spec.parallel_steps - len(live)",
        "slots = state.spec.parallel_steps - sum(not attempt.stopping for attempt in live)",
    ),
    Mutant(
        "a Job that is being deleted does not live",
        "selfevo_core.attempts",
        'return self.state in ("Pending", "Running")',
        'return self.state in ("Pending", "Running") and not self.stopping',
    ),
    Mutant(
        "parallelSteps is not heeded",
        "selfevo_core.reconcile",
        "elif len(starts) < slots:",
        "else:",
    ),
    Mutant(
        "two steps of one key run at once",
        "selfevo_core.reconcile",
        "if step.name in busy_names or step.key in busy_keys:",
        "if step.name in busy_names:",
    ),
    Mutant(
        "two runs make the same step at once",
        "selfevo_core.policies.sharing",
        "if not shared:",
        "if True:",
    ),
    Mutant(
        "a suspended run starts steps",
        "selfevo_core.reconcile",
        "may_start = not decision.starts_nothing",
        'may_start = not decision.starts_nothing or phase == "Suspended"',
    ),
    Mutant(
        "a run that is being deleted is reconciled",
        "selfevo_operator.controller.controller",
        "if snapshot.deleting or _settled(snapshot, jobs):",
        "if _settled(snapshot, jobs):",
    ),
    # --- what the end of an attempt means
    Mutant(
        "that an attempt has ended is forgotten",
        "selfevo_core.attempt_end",
        "    status = with_(status, ended=attempt.number)\n",
        "",
    ),
    Mutant(
        "an end is counted at every reconcile",
        "selfevo_core.observe",
        "if not attempt.live and attempt.number > status.ended:",
        "if not attempt.live:",
    ),
    Mutant(
        "a failure counts twice",
        "selfevo_core.attempt_end",
        "failures = status.failures + (attempt.failures if",
        "failures = status.failures + (2 * attempt.failures if",
    ),
    Mutant(
        "failures are not counted",
        "selfevo_core.attempt_end",
        'failures = status.failures + (attempt.failures if attempt.state == "Failed" else 1)',
        "failures = status.failures",
    ),
    Mutant(
        "what no retry cures is tried again",
        "selfevo_core.attempt_end",
        "    if code == ExitCode.INPUT:\n        return Event.INVALID_INPUT\n"
        "    if code == ExitCode.DATA:\n        return Event.BAD_DATA\n",
        "",
    ),
    Mutant(
        "a step that has begun is not given up, however often it fails",
        "selfevo_core.transitions",
        '("Running", Event.FAILED_TOO_OFTEN): "Failed",',
        '("Running", Event.FAILED_TOO_OFTEN): "Pending",',
    ),
    Mutant(
        "a run whose step is given up goes on",
        "selfevo_core.policies.failed_step",
        "if step is None:",
        "if True:",
    ),
    Mutant(
        "success without a result is believed",
        "selfevo_core.attempt_end",
        "        if too_often:\n            return Event.SCORE_LOST",
        "        if True:\n            return Event.SCORE_LOST",
    ),
    Mutant(
        "a lost score chooses which Solver is published",
        "selfevo_core.attempt_end",
        "return Event.SCORE_LOST if score_decides else Event.FIGURES_LOST",
        "return Event.FIGURES_LOST",
    ),
    Mutant(
        "the shard's outcome counts as the step's",
        "selfevo_core.attempt_end",
        'attempt.result.outcome in ("committed", "found")',
        'attempt.result.outcome in ("committed", "found", "shard")',
    ),
    Mutant(
        "a step that is done is run again when its Job is gone",
        "selfevo_core.observe",
        "if is_final(status.state):\n        return status\n\n",
        "if is_final(status.state) and attempts:\n        return status\n"
        '    if status.state == "Succeeded":\n        status = with_(status, state="Pending")\n',
    ),
    Mutant(
        "a failed step is never tried again",
        "selfevo_core.transitions",
        '    ("Failed", Event.SPEC_CHANGED): "Pending",\n',
        "",
    ),
    Mutant(
        "a failed step is tried again unasked",
        "selfevo_core.observe",
        "if spec_changed and (state :=",
        "if (state :=",
    ),
    Mutant(
        "the record of other steps is thrown away",
        "selfevo_core.reconcile",
        "record = records.get(of_step) or StepStatus(",
        "record = StepStatus(",
    ),
    # --- what is seen of Jobs
    Mutant(
        "a Job that its queue holds has failed",
        "selfevo_operator.observed.snapshots",
        "failed=failed is not None,",
        'failed=failed is not None or bool(spec.get("suspend")),',
    ),
    Mutant(
        "pods are not asked for the end",
        "selfevo_operator.controller.read",
        "attempt_of(job, await self._pod_evidence.of_end(job), gpus_each=gpus)",
        "attempt_of(job, gpus_each=gpus)",
    ),
    Mutant(
        "any owner is the controller",
        "selfevo_operator.observed.snapshots",
        'if owner.get("controller"):',
        "if True:",
    ),
    # That a Job without a controller stays the run's in the cache harms nobody here: it is deleted only as it was seen.
    # tests/operator/test_controller.py and test_cache.py see it.
    Mutant(
        "a Job whose next pod does not start is never made anew",
        "selfevo_operator.observed.snapshots",
        "if job.ended_pods and waiting is None:",
        "if job.ended_pods:",
    ),
    Mutant(
        "corrected pods do not replace a Job that cannot start",
        "selfevo_core.reconcile",
        'elif attempt.state == "Pending" and attempt.outdated:',
        "elif False:",
    ),
    # --- what is remembered of the cluster
    Mutant(
        "older versions replace newer ones",
        "selfevo_operator.observed.cache",
        "if version <= self._gone.get(uid, 0) or (old is not None and old.version >= version):",
        "if version <= self._gone.get(uid, 0):",
    ),
    Mutant(
        "an older version of a run replaces a newer one",
        "selfevo_operator.observed.cache",
        'if uid in self._gone or (old and old.version >= int(metadata["resourceVersion"])):',
        "if uid in self._gone:",
    ),
    Mutant(
        "a run that bore the name before takes the place of the one that bears it now",
        "selfevo_operator.observed.cache",
        'if uid in self._gone or (old and old.version >= int(metadata["resourceVersion"])):',
        'if uid in self._gone or (old and old.uid == uid and old.version >= int(metadata["resourceVersion"])):',
    ),
    Mutant(
        "what is deleted may come back",
        "selfevo_operator.observed.cache",
        "        self._gone.put(uid, version)\n",
        "        pass\n",
    ),
    Mutant(
        "what has lost our label is not asked for",
        "selfevo_operator.controller.read",
        "for job in list(memory.doubted_jobs.values()):",
        "for job in ():",
    ),
    Mutant(
        "a list drops what is younger than it",
        "selfevo_operator.observed.cache",
        "known.uid not in self._listed and known.version <= self._version]",
        "known.uid not in self._listed]",
    ),
    Mutant(
        "lists do not tell what is gone",
        "selfevo_operator.observed.cache",
        "known.uid not in self._listed and known.version <= self._version]",
        "False]",
    ),
    Mutant(
        "the queue forgets what is added while it works",
        "selfevo_operator.runtime.queue",
        "            self._again[key] = pressing or self._again.get(key, False)\n",
        "            pass\n",
    ),
    Mutant(
        "the queue forgets a key that failed",
        "selfevo_operator.runtime.queue",
        "        self._wait_until(key, now + wait)\n        return wait",
        "        return wait",
    ),
    # --- what is written
    # Whose a Job is, the cache knows by the Job's owner, so that a namesake that is met is nobody's here. Its message
    # is tests/operator/test_controller.py's: test_a_namesake_that_is_not_ours_is_left_alone_and_reported.
    Mutant(
        "a Job is deleted by its name, whoever it is",
        "selfevo_operator.controller.act",
        "left = await self._api.delete_job(job.namespace, job.name, job.uid, job.version)",
        'now = (await self._api.get_job(job.namespace, job.name))["metadata"]\n'
        '                version = int(now["resourceVersion"])\n'
        '                left = await self._api.delete_job(job.namespace, job.name, now["uid"], version)',
    ),
    Mutant(
        "a conflict on deleting means gone",
        "selfevo_operator.controller.act",
        "None if error.status == 404 else await self._current(job)",
        "None",
    ),
    Mutant(
        "the reply to a create is not taken in",
        "selfevo_operator.controller.act",
        "        self._cache.put_job(made)\n        digest",
        "        digest",
    ),
    Mutant(
        "the status is written whatever the version",
        "selfevo_operator.writes.status_patch",
        '[{"op": "test", "path": "/metadata/resourceVersion", "value": str(version)}, *start, *operations]',
        "[*start, *operations]",
    ),
    Mutant(
        "the status is written as a whole",
        "selfevo_operator.writes.status_patch",
        '    return [{"op": "test"',
        '    start, operations = [], [{"op": "add", "path": "/status", "value": wanted}]\n    return [{"op": "test"',
    ),
    Mutant(
        "conditions of others are dropped",
        "selfevo_operator.writes.status_patch",
        'wanted["conditions"] = _merged(recorded.get("conditions") or [], wanted["conditions"])',
        "pass",
    ),
    Mutant(
        "the status is written at every reconcile",
        "selfevo_operator.writes.status_patch",
        "    if not operations:\n        return []\n",
        '    operations = operations or [{"op": "add", "path": "/status/phase", "value": wanted["phase"]}]\n'
        '    operations.append({"op": "add", "path": "/status/conditions", "value": [\n'
        '        {**c, "lastTransitionTime": str(version)} for c in wanted["conditions"]]})\n',
    ),
    Mutant(
        "a conflict on the status is no reason to reconcile again",
        "selfevo_operator.controller.write",
        "            return AT_ONCE\n        self._cache.put_run(written)",
        "            return None\n        self._cache.put_run(written)",
    ),
    Mutant(
        "Jobs that nobody waits for are not stopped",
        "selfevo_core.reconcile",
        "stops = _stops(phase, state.steps, live)",
        "stops = []",
    ),
    Mutant(
        "a run that has ended is not reconciled while its Jobs end",
        "selfevo_operator.controller.controller",
        "return ended and not snapshot.unended and all(job.finished for job in jobs)",
        "return ended",
    ),
    Mutant(
        "a guard that has tripped stops nothing",
        "selfevo_core.policies.guarding",
        'if verdict.state == "Tripped"), None)',
        "if False), None)",
    ),
    Mutant(
        "a rollback changes no plan",
        "selfevo_operator.controller.read",
        "plan_of(run.spec, recorded)",
        'plan_of(run.spec, recorded.model_copy(update={"rollbacks": []}))',
    ),
    # --- what another run has made
    Mutant(
        "a fork begins with what is not done",
        "selfevo_core.policies.forking",
        "return all((step.name, step.key) in done for step in planned.making(iteration))",
        "return True",
    ),
    Mutant(
        "what a fork begins with is forgotten",
        "selfevo_core.run_status",
        "fork=decision.fork or before.fork",
        "fork=decision.fork",
    ),
    Mutant(
        "nobody tells a fork that the other run has gone on",
        "selfevo_operator.controller.controller",
        "in self._forks.changed()",
        "in ()",
    ),
    Mutant(
        "a fork that waits is done",
        "selfevo_core.policies.base",
        "return bool(self.steps) and all(",
        "return all(",
    ),
    Mutant(
        "a fork plans with the base",
        "selfevo_core.policies.forking",
        "return fork.model_copy(update=_keys(planned, record, asked.iteration))",
        "return fork",
    ),
    Mutant(
        "the last Solver is fine-tuned, and not the best",
        "selfevo_core.policies.choosing",
        "best = spec.iterations if best is None else best",
        "best = spec.iterations",
    ),
    Mutant(
        "the choice of what is fine-tuned changes no plan",
        "selfevo_operator.controller.read",
        "decided(recorded))",
        "decided(recorded)[:2])",
    ),
    Mutant(
        "rollbacks never end",
        "selfevo_core.policies.guarding",
        "len(state.recorded.rollbacks) < most and",
        "",
    ),
    Mutant(
        "exit codes that no retry cures are tried again by the Job",
        "selfevo_operator.manifests.job",
        '*(_on_exit("FailJob", container, final) for container in ours),',
        "",
    ),
    Mutant(
        "disruption counts as failure",
        "selfevo_operator.manifests.job",
        '{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},',
        "",
    ),
    Mutant(
        "the Job does not say whose it is",
        "selfevo_operator.manifests.job",
        '"ownerReferences": [_owner(run)],\n        },\n        "spec": {\n            **_completions',
        '"ownerReferences": [],\n        },\n        "spec": {\n            **_completions',
    ),
)
