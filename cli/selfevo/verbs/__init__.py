"""The command's verbs, one a file."""
