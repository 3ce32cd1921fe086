"""The bounded channel between a run and a caller that reads it."""
