"""Artifacts at work: load one and run it."""
