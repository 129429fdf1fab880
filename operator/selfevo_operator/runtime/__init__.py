"""The process: workers, queue, probes, metrics and settings."""
