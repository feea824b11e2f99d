"""What the trainer writes into a diffusers folder's ``model_index.json`` for the compiler. Imports nothing."""

BASE_DIGEST = "_base_digest"
"""The key that names the digest of the base that a model was trained from; diffusers skips it."""
