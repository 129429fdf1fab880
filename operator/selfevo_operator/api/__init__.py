"""Calls to the API server, and who makes them."""
