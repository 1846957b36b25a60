"""What people write, and where it is found: sites, servers, sweeps, runs in YAML."""
