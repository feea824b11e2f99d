"""The gRPC contract (package ``mezzotint.v1``), its stubs and the thin client; imports nothing of ours."""
