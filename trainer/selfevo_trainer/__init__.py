"""What runs inside a Job: one phase of a self-evolution run, configured by one PhaseConfig."""
