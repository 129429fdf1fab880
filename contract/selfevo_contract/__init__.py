"""What operator and trainer agree on: the resource, the plan, the phases, the artifacts.

pydantic only. Imports neither kopf nor torch, so that either side can be installed alone.
"""
