"""GPU memory of each phase of a run, by formula (docs/sizing.md). Pure."""
