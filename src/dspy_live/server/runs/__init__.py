"""The runs that a server has under way."""
