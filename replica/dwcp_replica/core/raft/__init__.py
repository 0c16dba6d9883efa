"""The Raft driver over the chain core: a star with a leader (Ongaro 2014), safe among liars.

Every term belongs to one member, `EpochRecord.primary(term)`, as a PBFT view does, and a member
stands for election in its own terms only: so a header's signer is known from its term, no vote is
ever split, and the rules of epochs.md are met by fewer behaviours than were model-checked.

    follower --no leader for a random while--> asks (pre-vote) --q would vote--> candidate
    candidate --q identical VOTEs: the term's certificate, EC--> leader
    leader, candidate --a certificate of a higher term; no quorum answers; a restart--> follower

A vote binds the candidate's last entry. The leader begins with one empty entry on exactly that,
and shows EC with it. Followers take the chain up to that entry at once or not at all: a log never
ends in what an unfinished take-over brought. They ack each entry to the leader only; q acks are
the first certificate, CC; under Byzantine trust the leader sends it out, q cert-acks are the
second, and the entry is final. Under Crash trust CC is enough, and there is no second round.

Acks are `Prepare` and cert-acks are `Commit`: the same votes, books, certificates and evidence as
in PBFT. `Append` and `Appended` carry entries and flow control, per follower (progress.py).
"""
