"""What runs inside the peers' environments: one module per peer, and the protocol that all follow."""
