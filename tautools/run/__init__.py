"""One cell: what is owed, scheduling, ledger, events."""
