"""What is made on Kubernetes for a cluster: pure functions that return objects as dicts."""
