"""Why a server failed: a table of known failures (`failures.yaml`), and the rules that read a log with it."""
