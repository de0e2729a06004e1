"""Recipes, targets and their YAML: the only place that knows yaml and pydantic (host half)."""
