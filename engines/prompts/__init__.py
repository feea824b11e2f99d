"""Prompts: A1111's language, chunks of tokens, and what the text encoder makes of them.

``editing.py`` says which text each step sees, ``attention.py`` how much each of its words counts, ``chunks.py`` how it
is cut into rows of the text encoder; ``rows.py`` puts them together for an image's rows, ``encoder.py`` encodes them.
"""
