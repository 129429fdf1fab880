"""One manifest and a grid of settings: many runs."""
