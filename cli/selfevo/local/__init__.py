"""Runs on this machine: processes in the place of Jobs."""
