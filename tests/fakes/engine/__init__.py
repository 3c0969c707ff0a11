"""A stand-in for an OpenAI-compatible engine, with manners to choose.

``standin.py`` is the program. It runs from its path here, from its directory copied anywhere, or as
the one file that :mod:`.packing` makes of it. Standard library only, Python 3.10 or newer.
"""
