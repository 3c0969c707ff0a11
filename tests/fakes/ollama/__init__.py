"""A stand-in for Ollama's program: its commands, its store, its API, without a model behind it.

``ollama.py`` is the program. Its library, from which models are pulled, is a directory with a file
for each ``NAME:TAG``, which is the manifest: ``FAKE_OLLAMA_LIBRARY``. What it serves, and what
SIGTERM does to it, is the stand-in engine's, in the dialect of Ollama. ``STANDIN_ACCOUNT`` names
the file of its account, ``STANDIN_TOKEN_DELAY`` the seconds per word. :mod:`.packing` makes a
release tarball of it.
"""
