"""`selfevo ui`: read-only pages on runs. What they say is in the store; which runs there are, in the record folder.

command (options) -> app (requests -> pages) -> runs (record folder, store -> runs)
                                             -> questions (rollouts -> a table that DuckDB searches)
filters (a query string <-> what is asked for) is pure.
"""
