"""Where a torch module and its weights come from (host half)."""
