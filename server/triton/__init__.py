"""Mezzotint inside NVIDIA's Triton Inference Server: the models of its python backend, and the folder they lie in.

``stream.py``, ``whole.py``, ``component.py`` and ``counts.py`` run in a process that Triton starts, which alone has the
module ``triton_python_backend_utils``; nothing else imports them. ``export.py`` writes the model repository.
"""
