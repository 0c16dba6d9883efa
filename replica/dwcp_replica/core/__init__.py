"""The consensus engine: sans-IO and deterministic.

Objects here take events and return effects (`effects.py`); they read no clock, draw no random
number, open no file. The same engine runs under the node, which does the I/O, and under the
simulator, which has virtual time. Sources: Castro and Liskov 1999 and 2002 (PBFT); Ongaro and
Ousterhout 2014 (the chain core's elections are Raft's).
"""
