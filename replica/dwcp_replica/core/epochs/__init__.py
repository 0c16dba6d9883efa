"""Ending one epoch and agreeing on the next (epochs.md, Switching; Changing members).

    serving in e --trigger--> sealed e --q SEALs, the slot--> record e+1 decided --> serving in e+1

A trigger is a committed SWITCH, f+1 PANICs, or a proof that a leader equivocated (`triggers`).
It makes a replica write down and send its SEAL, what it holds of the epoch's log, after which
it signs nothing more in that log (`seals`). A quorum of SEALs fixes where the next epoch starts,
by the same `recover` that starts a view, and what its record says (`records`). Several such sets
of SEALs are possible, so one PBFT instance with views of its own, the slot, decides which record
it is (`slot`). `switching` joins these for the epoch that ends, `succession` takes a replica
from record to record, `history` fetches what an ended epoch left, and `mute` brings back a
replica that lost the tail of its log.
"""
