"""The one sequence from recipe to artifacts, and the store that remembers it (host half)."""
