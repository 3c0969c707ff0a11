"""What a model's files say of it, and what engines can do with that. Pure.

``gguf`` reads the head of a GGUF file, ``config`` a ``config.json``, ``adapter`` that of a LoRA
adapter; ``known`` is what versions of engines know: architectures, and quantisations with the GPUs
that they need.
"""
