"""How long does a picture take, beside other engines? Each in an environment of its own, all in one interleaved run.

    python -m benchmarks.peers build/sd15-full --name sd15-size --bundle int8=build/sd15-int8

What is timed stands in ``catalog.py``; ``environments.py`` and ``exports.py`` make what it needs and keep it;
``turns.py`` runs one process at a time; ``workers/`` holds what such a process does; ``report.py`` makes the table.
"""
