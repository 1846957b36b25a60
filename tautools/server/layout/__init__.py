"""Which server gets which node, cards and port, and many servers started as one."""
