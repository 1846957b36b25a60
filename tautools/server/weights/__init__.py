"""A model's weights: on this machine's disk, at the hub, and fetched."""
