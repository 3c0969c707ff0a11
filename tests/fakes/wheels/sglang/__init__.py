"""Not SGLang: a stand-in with its name."""
