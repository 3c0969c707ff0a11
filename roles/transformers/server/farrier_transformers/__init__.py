"""One model of Hugging Face's Transformers behind OpenAI's endpoints: see ``__main__``.

Only ``loading``, ``generating`` and ``embedding`` know torch; all else is without it.
"""
