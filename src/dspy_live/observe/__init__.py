"""What a program did and what it cost: the tracker, the ledger, logs, metrics and traces."""
