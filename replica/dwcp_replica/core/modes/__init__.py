"""Which protocol fits the network: what is measured, what follows from it, what it would cost.

`reach` turns one replica's links into the network that it has to a quorum; `decide` turns the
replicas' reports into a mode; `predict` says what each mode and each leader would cost. All of
it is pure: times and reports are arguments, and equal ones give equal answers everywhere, since
the decision is replicated state.
"""
