"""Everything that turns a compiled bundle into images inside one process; imports no torch, no server."""
