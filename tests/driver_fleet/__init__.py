"""Drivers of hosts that serve, changed under load."""
