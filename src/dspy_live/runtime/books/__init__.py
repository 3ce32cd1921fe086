"""The usage of the process: who is told of it, what it costs, and its sums."""
