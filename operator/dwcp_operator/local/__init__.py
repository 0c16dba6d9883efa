"""The operator's actions on local processes: `dwcp up` without Kubernetes."""
