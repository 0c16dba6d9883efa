"""What can go wrong with a local cluster; every message says what to do instead."""

from __future__ import annotations


class LocalError(Exception):
    """The base of errors of local clusters."""


class NoSuchDirectoryError(LocalError):
    """The data directory does not exist."""


class NotADataDirectoryError(LocalError):
    """The directory exists, but no cluster was made in it, or a newer version made it."""


class AlreadyRunningError(LocalError):
    """Another supervisor holds the data directory."""


class RefusedChangeError(LocalError):
    """The manifest asks for a change that can not be made to this cluster."""


class StartFailedError(LocalError):
    """The cluster did not become available in time."""


class GenesisConflictError(LocalError):
    """A genesis that does not belong here: nothing was changed."""
