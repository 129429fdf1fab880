"""OpenAI-compatible servers and how they are asked: by an engine, and by an oracle."""
