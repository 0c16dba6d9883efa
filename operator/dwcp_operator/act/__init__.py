"""Carries the planner's steps out on Kubernetes, and looks at what is there."""
