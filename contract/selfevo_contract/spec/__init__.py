"""``spec`` of a SelfEvolutionRun: one file a part. The whole is `run.RunSpec`."""
