"""The operator of DWCP: the custom resource, the pure planner, and the actions.

`resources` and `manifest` say what a DWCPCluster is, `plan` what to do next, `conditions` and
`status` what to tell the user; none of them does I/O. `local` acts on local processes.
"""
