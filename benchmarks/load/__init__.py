"""How does a server fare under traffic? Its orders of the queue, and other servers' ways, simulated beside each other.

``traffic.py`` draws who asks when for how much; ``engine.py`` says how long calls take; ``disciplines.py`` finds when
each picture leaves; ``__main__.py`` asks the questions. ``real.py`` asks them on a compiled bundle's engines:
``serving.py`` serves each way, ``stopwatch.py`` times the engines' calls, ``cells.py`` runs the ways in turns, and
``throughput.py`` saturates the server; ``real_report.py`` and ``real_plot.py`` write what came of it.
"""
