"""The HTTP/1.1 client behind :mod:`dspy_live.runtime.http.transport`, one concern per file."""
