"""The serving process: request scheduler, engine loop, gRPC service. Imports engines and proto, never torch."""
