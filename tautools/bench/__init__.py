"""The benchmark: tasks, tools, users, agents, the conversation loop, rewards."""
