"""What is written down of the agent's outward face; a change of it is made on purpose."""
