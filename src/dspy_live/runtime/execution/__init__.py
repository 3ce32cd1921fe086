"""How a program's code is run, and which event loop does its I/O."""
