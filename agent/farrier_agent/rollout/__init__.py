"""The host's half of a rollout: who holds its lease, what it is doing here, and what was done.

``lease`` says what follows from what, and ``keeping`` keeps it durably; ``audit`` is the list of
what was done to the host, and by whom; ``ledgers`` are copies of what rollouts keep on their side.
"""
