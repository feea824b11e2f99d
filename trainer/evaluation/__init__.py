"""What a fine-tune has learned and what it has kept: measures, their intervals, and pages to look at.

Nothing here knows how a model was trained. numpy and Pillow do the measuring; torch is imported by ``vision.py`` and
``latents.py`` alone.
"""
