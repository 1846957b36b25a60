"""The doors to the benchmarks, one module per place they are kept."""
