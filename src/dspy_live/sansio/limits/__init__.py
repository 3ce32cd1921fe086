"""Arithmetic of limits: what a clock reading, a count or a failure decides. None of it waits."""
