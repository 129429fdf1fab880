"""Answers: extracted from text, graded, voted on. Pure, or in processes that can be killed."""
