"""Trackers: where a run can be watched beside its own report, each in a process of its own (docs/tracking.md).

A kind is one file with ``open_sink(tracker, job)``, of the name that it has in the contract.
"""
