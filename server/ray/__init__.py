"""Many replicas of a server behind one port, on Ray Serve: the same contract, in a process for each replica.

Serve's proxy takes a call (``door.py``), its router chooses a replica (``router.py``, by ``loads.py``), and the replica
answers it as a server of its own would (``replica.py``). ``router.py`` alone imports Ray at its top; Ray imports it.
"""
