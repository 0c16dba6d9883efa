"""In which order clients' rights are changed, so that one of them can always change the next.

Whoever changes rights must be allowed to at that very moment. So a client that may administer now
and is to go on with it does the work, and its own entry comes last. Where none is both, one that
may now first lets in one that is to be allowed, which does the rest. Cut off after any step, the
plan begins anew from what the log holds by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dwcp.wire.operations import Access

Rights = Mapping[str, Access | None]
"""By client; None stands for everything."""


@dataclass(frozen=True, slots=True)
class SetRights:
    """From here on in the log `client` may do this; ordered by the client `by`."""

    client: str
    access: Access | None
    by: str


def may_administer(access: Access | None) -> bool:
    """Whether a client with these rights may change rights."""
    return access is None or access.admin


def plan_access(wanted: Rights, held: Rights) -> tuple[SetRights, ...]:
    """The changes that lead from `held` to `wanted`, in order; of the same clients.

    Raises ValueError when nobody may administer now, or nobody is to.
    """
    assert wanted.keys() == held.keys(), "rights of the same clients"
    if wanted == held:
        return ()
    now = [name for name in sorted(held) if may_administer(held[name])]
    later = [name for name in sorted(wanted) if may_administer(wanted[name])]
    if not now:
        raise ValueError("no client may administer: what clients may do can not be changed")
    if not later:
        raise ValueError("no client would be left that may administer")
    stays = [name for name in now if name in later]
    worker = stays[0] if stays else later[0]
    steps = [] if stays else [SetRights(worker, wanted[worker], now[0])]
    others = [name for name in sorted(wanted) if name != worker and wanted[name] != held[name]]
    steps += [SetRights(name, wanted[name], worker) for name in others]
    if stays and wanted[worker] != held[worker]:
        steps.append(SetRights(worker, wanted[worker], worker))
    return tuple(steps)
