"""One script per question; each writes a table and its JSON into ``benchmarks/results``."""
