"""Runs in a cluster, as a client of its API server reads them."""
