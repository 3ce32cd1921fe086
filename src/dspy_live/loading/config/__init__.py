"""The configuration file ``dspy-live.toml``: its shape, how it is read and checked, what is built from it."""
