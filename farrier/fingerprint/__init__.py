"""Fingerprints of a whole fleet: hosts of one kind compared with each other."""
