"""Not TensorRT-LLM: a stand-in with its name."""
