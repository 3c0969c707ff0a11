"""What the part ``gate`` brings to the host: an engine that is no bottleneck, and clients."""
