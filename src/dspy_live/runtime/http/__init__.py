"""The HTTP/1.1 client behind :mod:`dspy_live.runtime.transport`, one concern per file."""
