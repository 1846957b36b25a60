"""The simulated model server. Everything it produces is marked SIMULATED."""
