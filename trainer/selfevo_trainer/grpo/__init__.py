"""GRPO by TRL's trainer, and its checkpoints."""
