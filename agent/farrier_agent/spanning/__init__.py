"""Replicas over several hosts: on each but the first, a unit that follows the first one's runs."""
