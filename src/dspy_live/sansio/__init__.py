"""Deciding without doing: no async, no clock, no globals."""
