"""Many cells: plan, papermill, status."""
