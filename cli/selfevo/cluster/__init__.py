"""Runs in a cluster, looked at from outside."""
