"""Whether our loop equals tau-bench v1's own agents, users and envs: one script, two loops, all requests compared."""
