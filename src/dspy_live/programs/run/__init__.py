"""One run of a program, from its start to its end."""
