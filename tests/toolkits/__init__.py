"""Roles that a deploy brings beside the driver, each alone on a lab's host."""
