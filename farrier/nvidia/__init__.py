"""What is known of NVIDIA's hardware and releases, without looking at any host."""
