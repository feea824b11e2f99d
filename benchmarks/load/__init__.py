"""How does a server fare under traffic? Its orders of the queue, and other servers' ways, simulated beside each other.

``traffic.py`` draws who asks when for how much; ``engine.py`` says how long calls take; ``disciplines.py`` finds when
each picture leaves; ``__main__.py`` asks the questions.
"""
