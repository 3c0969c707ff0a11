"""The lives of the replicas: what the agent does for each of them, from its start to its end.

``draining/`` says what follows from what, and keeps it; here is who sees, asks and acts.
"""
