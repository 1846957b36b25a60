"""What finished conversations did, from a replay and without a model: why they failed, other rules, baselines."""
