"""The load generator behind ``dspy-live load``."""
