"""The phases, one file each: ``run(context) -> PhaseResult``."""
