"""The fleet at a glance: what ``farrier status`` asks of a host, and makes of the answers."""
