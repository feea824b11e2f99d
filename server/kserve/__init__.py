"""A second front end: the KServe v2 / Triton gRPC protocol, over the same cores as ``service.py``."""
