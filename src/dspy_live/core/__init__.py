"""The nouns: calls, events, services, schemas, errors, usage. No I/O, no clock, no dspy."""
