"""A state machine of one's own on DWCP: accounts that can not be overdrawn.

    PYTHONPATH=examples DWCP_MACHINE=ledger:Ledger dwcp up -f examples/quickstart.yaml
    PYTHONPATH=examples python examples/ledger.py .dwcp

Every replica applies the same transfers in the same order, each exactly once. The client
believes an answer when f+1 replicas have signed the same one, so that no f of them can invent
money. The machine writes `apply`; snapshots, digests, restarts and the transfer of state to a
replica that was away come with `RecordsMachine`.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from dwcp import Client
from dwcp_replica.store.machine import CommandRefusedError, Moment, RecordsMachine


class Deposit(msgspec.Struct, frozen=True, array_like=True, tag="deposit"):
    """Put money that comes from outside on an account."""

    account: str
    amount: int


class Move(msgspec.Struct, frozen=True, array_like=True, tag="move"):
    """Move money from one account to another."""

    source: str
    target: str
    amount: int


class Balance(msgspec.Struct, frozen=True, array_like=True, tag="balance"):
    """Ask what is on an account, after everything that was answered before."""

    account: str


_commands = msgspec.msgpack.Decoder(Deposit | Move | Balance)


class Ledger(RecordsMachine):
    """Balances by account, each a record. The answer to every command is a balance."""

    def apply(self, command: bytes, moment: Moment) -> bytes:  # noqa: ARG002 - needs no time
        """Execute a command; refuses what can not be decoded or paid."""
        try:
            asked = _commands.decode(command)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise CommandRefusedError("not a Deposit, Move or Balance") from error
        match asked:
            case Deposit(account, amount):
                return self._change(account, _positive(amount))
            case Move(source, target, amount):
                _key(target)  # all that may be refused is refused before anything changes
                left = self._change(source, -_positive(amount))
                self._change(target, amount)
                return left
            case Balance(account):
                return self._change(account, 0)

    def _change(self, account: str, by: int) -> bytes:
        key = _key(account)
        balance = int(self.records.get(key) or b"0") + by
        if balance < 0:
            raise CommandRefusedError(f"{account} has only {balance - by}", code=9)
        if by:
            self.records.set(key, b"%d" % balance)
        return b"%d" % balance


def _key(account: str) -> bytes:
    key = account.encode()
    if not 0 < len(key) <= 64:
        raise CommandRefusedError("an account's name has 1 to 64 bytes")
    return key


def _positive(amount: int) -> int:
    if not 0 < amount < 10**15:
        raise CommandRefusedError("an amount is from 1 to 10**15 - 1")
    return amount


async def main(directory: str) -> None:
    """Move some money on a running cluster."""
    encode = msgspec.msgpack.encode
    async with Client.from_directory(directory) as client:
        await client.command(encode(Deposit("ann", 100)))
        left = await client.command(encode(Move("ann", "bob", 30)))
        has = await client.command(encode(Balance("bob")))
        print(f"ann has {left.decode()}, bob has {has.decode()}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else ".dwcp"))
