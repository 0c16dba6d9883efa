"""A real Kubernetes cluster on one bare machine, made for testing operators.

Everything public is here; the command line is `python -m sandbox` (see README.md).
"""

from sandbox.cluster import Sandbox
from sandbox.shell import CommandError, SandboxError, wait_until

__all__ = ["CommandError", "Sandbox", "SandboxError", "wait_until"]
