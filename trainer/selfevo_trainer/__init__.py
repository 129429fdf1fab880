"""What runs inside a Job: one phase of a self-evolution run, told what to do by one PhaseConfig."""
