"""DWCP beside etcd and CometBFT on one machine, in interleaved rounds: `python -m compare`.

systems.py   starts each of them, and knows its processes and how many fsyncs it made
loads.py     loads one of them with so many clients for a while
page.py      figures to JSON, a picture and docs/performance.md
__main__.py  the rounds
"""
