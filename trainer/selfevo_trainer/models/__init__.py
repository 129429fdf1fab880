"""Models: fetched from a hub, refused, loaded."""
