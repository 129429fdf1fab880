"""How a run looks in a terminal while it goes on."""
