"""``serve --workers``: a supervisor, and the processes that serve."""
