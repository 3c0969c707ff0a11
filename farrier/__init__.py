"""Fits bare machines for serving LLMs, over SSH: the operator's side."""
