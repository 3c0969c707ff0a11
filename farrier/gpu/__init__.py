"""A GPU after a fault, from the operator's side: its host's bundle is fetched."""
