"""A step -> the Job that does it, and the list of what its pods may have. Pure."""
