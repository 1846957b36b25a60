"""What a vLLM is started with: its command, its options, its environment, and what its family of models needs."""
