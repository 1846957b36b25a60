"""Servers: launch, registry, verification, logs, stop."""
