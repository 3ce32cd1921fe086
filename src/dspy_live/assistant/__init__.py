"""Explains, converts a user's program, and runs what it shows."""
