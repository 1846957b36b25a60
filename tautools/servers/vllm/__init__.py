"""vLLM itself: its command line, its flags, its log."""
