"""The steps that change a model: prune, fine-tune, quantise, export (host half)."""
