"""Records of runs and their cost: the tracker, the ledger, logs, metrics and traces."""
