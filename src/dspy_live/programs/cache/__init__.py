"""DSPy's own response cache, read safely."""
