"""A seeded world in virtual time that runs the same core, store and client session as the node.

One seed fixes everything: delays, losses, crashes, lies and what clients ask. Every step is
checked; a failure prints one command that replays it, and can be shrunk.

| module | idea |
|---|---|
| `world`, `disk`, `host`, `client` | time and links; what survives a crash; a member; who asks |
| `scenario` | what a seed decides, as data |
| `liar`, `lies`, `tricks`, `mutation`, `registry` | how up to f members lie |
| `strategies` | the few lies that a real process can be told to tell |
| `checks`, `ledger`, `linear` | what must hold: for all, for each member, for the clients |
| `run`, `campaign`, `shrink` | one life; many lives; a smaller life that fails alike |
| `planting`, `planted`, `bugs`, `lapses` | bugs planted on purpose, to prove the checks |
"""
