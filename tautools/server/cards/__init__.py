"""The cards of a node: read, guarded, waited for, and whoever holds them named."""
