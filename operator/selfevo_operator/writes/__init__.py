"""What is written about a run: the status and its events. Pure."""
