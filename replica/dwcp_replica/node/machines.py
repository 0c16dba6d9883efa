"""Loading the state machine that a cluster's owner embeds."""

from __future__ import annotations

from importlib import import_module

from dwcp_replica.store.machine import RecordsMachine, StateMachine


class MachineNameError(ValueError):
    """The name of a machine leads to none; the message says why."""


def load_machine(name: str | None) -> StateMachine | None:
    """A new instance of "module:Class", which Python must be able to import; None for None.

    Raises MachineNameError.
    """
    if name is None:
        return None
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise MachineNameError(f"{name!r} is not MODULE:CLASS")
    try:
        machine = getattr(import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError) as error:
        raise MachineNameError(
            f"the state machine {name} can not be made ({error}): put its module where this "
            "Python finds it (PYTHONPATH), and let the class take no arguments"
        ) from error
    if not isinstance(machine, RecordsMachine | StateMachine):
        raise MachineNameError(
            f"{name} is no state machine: it needs apply, snapshot, restore and digest"
        )
    return machine
