"""The PBFT driver over the chain core: all-to-all, three phases (Castro and Liskov 1999).

The primary extends the chain by one entry per batch (PRE-PREPARE). Each replica votes for the
entry's hash (PREPARE); a quorum of votes, the primary's signature being its own, is the first
certificate, CC. Once a replica holds that durably it votes again (COMMIT); a quorum of those is
the second certificate, and the entry and everything below it is final: executed, answered,
never undone. A view change collects a quorum of statements of what each replica holds and
computes the new view's start from them by `recover`, the same function that ends an epoch.
"""
