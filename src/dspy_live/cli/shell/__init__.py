"""The interactive shell behind ``dspy-live shell``."""
