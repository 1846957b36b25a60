"""A stand-in for tau2-bench. It prints where a package should not."""

print('{"ok": "a line on standard output that is no answer"}')
