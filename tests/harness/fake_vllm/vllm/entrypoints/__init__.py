"""A stand-in for the package vllm, found before the real one when its folder is on the path."""
