"""The accelerators of a node: read, assigned to servers, and released."""
