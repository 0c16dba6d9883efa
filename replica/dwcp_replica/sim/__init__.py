"""A seeded world in virtual time that runs the same core, store and client session as the node.

One seed fixes everything: delays, losses, crashes, lies and what clients ask. Agreement and
order are checked after every execution; a failure prints one command that replays it.
"""
