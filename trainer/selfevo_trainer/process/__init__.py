"""This process: its signals, its progress report, its log."""
