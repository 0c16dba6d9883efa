"""A document: operations in, state out; the same state wherever the same operations arrived.

`receive` takes operations from anyone in any order, any number of times. An operation is refused
only for what its bytes and its causal past say, so that all honest replicas refuse the same ones.
`edit` makes operations of our own. Nothing here reads a clock or draws a number.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from dwcp.crdt.frontier import divide, follows
from dwcp.crdt.graph import Graph, Links
from dwcp.crdt.held import Held
from dwcp.crdt.image import decode_image, encode_image
from dwcp.crdt.objects import Object, Orders
from dwcp.crdt.state import BadEdit, State
from dwcp.crdt.transaction import Transaction
from dwcp.crdt.values import BadValue, Value
from dwcp.wire.decoding import decoder_of
from dwcp.wire.documents import (
    MAX_HEADS,
    DocumentName,
    Kind,
    Operation,
    OperationBody,
    decode_operation,
    decode_operation_body,
    operation_signing_bytes,
)
from dwcp.wire.signing import PublicKey, Signer, Verifier

Outcome = Literal["applied", "known", "held", "refused"]


class Authors(Protocol):
    """Who may write, by epoch; agreed through the log, so that all replicas answer alike."""

    def may_write(self, document: str, author: bytes, epoch: int) -> bool | None:
        """True or False for an epoch that is known here, None for one that is not yet."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What a document needs to judge an operation: cluster, signatures, authors."""

    genesis: bytes
    verifier: Verifier
    authors: Authors


@dataclass(frozen=True, slots=True)
class Received:
    """What became of an operation. `applied` lists hashes in order, held ones that it freed too."""

    outcome: Outcome
    applied: tuple[bytes, ...] = ()
    reason: str = ""


class Dump(Struct, frozen=True, array_like=True):
    """A document at rest: the image of what was collected, the operations since, the evicted."""

    name: DocumentName
    image: bytes | None
    operations: tuple[Operation, ...]
    held: tuple[Operation, ...]
    evicted: tuple[PublicKey, ...]


_decode_dump: Callable[[bytes], Dump] = decoder_of(Dump)


@dataclass(frozen=True, slots=True)
class Material:
    """The last image and the operations from there to a frontier; may be used on any thread."""

    name: str
    rules: Rules
    last: bytes | None
    operations: tuple[Operation, ...]

    def image(self) -> bytes:
        """The image at the frontier: the same bytes on every replica, whatever came first there."""
        scratch = Document(self.name, self.rules)
        return scratch.drawn(self.last, sorted(self.operations, key=_order))


def _order(operation: Operation) -> tuple[int, bytes, bytes]:
    """As Graph.order: it extends causality, and depends on no replica."""
    return decode_operation_body(operation.body).lamport, operation.author, operation.hash()


class Refused(Exception):  # noqa: N818 - named as the protocol names it
    """The operation can never be valid; `reason` is an enumerated word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Document:
    """One replica of one document."""

    def __init__(self, name: str, rules: Rules) -> None:
        self.name = name
        self.graph = Graph()
        self.held = Held()
        self.refused: Tally[str] = Tally()
        self._rules = rules
        self._state = State(Orders(self.graph.order, self.graph.rank))
        self._operations: list[Operation] = []
        self._image: bytes | None = None
        self._evicted: dict[bytes, None] = {}
        self._editing = False
        self.generation = 0

    # reading

    @property
    def heads(self) -> list[bytes]:
        """Hashes of the operations that none follows, sorted: they name the version."""
        return self.graph.head_hashes()

    @property
    def state(self) -> State:
        """The objects; only a Transaction changes them."""
        return self._state

    def view(self) -> Value:
        """The whole document as JSON."""
        return self._state.view()

    def get(self, path: str | tuple[str, ...], kind: Kind) -> Value:
        """The JSON view of one object, or None when it is not there."""
        found = self.find(path, kind)
        return None if found is None else found.view()

    def find(self, path: str | tuple[str, ...], kind: Kind) -> Object | None:
        """The object itself, or None when it is not there."""
        found = self._state.find((path,) if isinstance(path, str) else path, kind)
        return found if found is not None and found.present else None

    def operation(self, name: bytes) -> Operation | None:
        """An applied operation by hash; None when it is unknown, or was collected."""
        number = self.graph.numbers.get(name, -1)
        return None if number < self.graph.floor else self._operations[number - self.graph.floor]

    def operations(self, numbers: Iterable[int] | None = None) -> Iterator[Operation]:
        """Applied operations by number (default: all that were not collected), in causal order."""
        if numbers is None:
            return iter(self._operations)
        return (self._operations[number - self.graph.floor] for number in numbers)

    # receiving

    def receive(self, operation: Operation) -> Received:
        """Take an operation: applied, already known, held until its past arrives, or refused."""
        assert not self._editing, "finish the transaction first"
        name = operation.hash()
        if name in self.graph or name in self.held:
            return Received("known")
        try:
            body = self._read(operation)
            reason = self._unresolved(operation, body)
            if reason is not None:
                return self._hold(name, operation, reason)
            self._apply(name, operation, body)
        except Refused as refused:
            self.refused[refused.reason] += 1
            return Received("refused", (), refused.reason)
        return Received("applied", (name, *self._release(name)))

    def epoch_known(self, epoch: int) -> tuple[bytes, ...]:
        """Judge what was held for this epoch, now that its authors are known; applied hashes."""
        return self._retry(self.held.release(epoch))

    def _read(self, operation: Operation) -> OperationBody:
        """Decode and check what needs no other operation."""
        try:
            body = decode_operation_body(operation.body)
            canonical = msgspec.msgpack.encode(body) == operation.body
        except (msgspec.DecodeError, RecursionError) as error:
            raise Refused("malformed", str(error)) from None
        if not canonical:
            # A decoder skips unknown parts as deep as the stack allows, which differs by caller:
            # without this check one replica could take what another refuses.
            raise Refused("malformed", "the body is not in its one canonical form")
        if body.document != self.name:
            raise Refused("document", f"an operation of {body.document!r} for {self.name!r}")
        message = operation_signing_bytes(self._rules.genesis, operation.body)
        if not self._rules.verifier.verify(operation.author, message, operation.sig):
            raise Refused("signature", "the author's signature does not verify")
        return body

    def _unresolved(self, operation: Operation, body: OperationBody) -> bytes | int | None:
        """What has to be known first: the epoch's authors, then every predecessor."""
        if operation.author in self._evicted:
            raise Refused("evicted", "the author was evicted, and this is not in the past it left")
        allowed = self._rules.authors.may_write(self.name, operation.author, body.epoch)
        if allowed is False:
            raise Refused("author", f"the author may not write in epoch {body.epoch}")
        if allowed is None:
            return body.epoch
        numbers = self.graph.numbers
        for name in (*body.heads, *body.names):
            if name not in numbers:
                return name
        return None

    def _hold(self, name: bytes, operation: Operation, reason: bytes | int) -> Received:
        if not self.held.add(name, operation, reason):
            self.refused["held-full"] += 1
            return Received("refused", (), "held-full")
        return Received("held")

    def _release(self, name: bytes) -> tuple[bytes, ...]:
        return self._retry(self.held.release(name))

    def _retry(self, released: Sequence[tuple[bytes, Operation]]) -> tuple[bytes, ...]:
        """Judge held operations again, and those that wait for them, without recursion."""
        applied: list[bytes] = []
        queue = list(released)
        for name, operation in queue:
            body = decode_operation_body(operation.body)
            try:
                reason = self._unresolved(operation, body)
                if reason is not None:
                    self._hold(name, operation, reason)
                    continue
                self._apply(name, operation, body)
            except Refused as refused:
                self.refused[refused.reason] += 1
                continue
            applied.append(name)
            queue += self.held.release(name)
        return tuple(applied)

    def _apply(self, name: bytes, operation: Operation, body: OperationBody) -> None:
        """Judge an operation whose past is all here, and apply it."""
        numbers = [self.graph.numbers[parent] for parent in (*body.heads, *body.names)]
        links = self._check_links(operation.author, body, numbers)
        if not follows(self.graph, numbers):
            raise Refused("rebase", "based below the collected frontier: replay it on the present")
        names = [len(self.graph), *numbers]
        try:
            self._state.check(body.edits, names)
        except (BadEdit, BadValue) as error:
            raise Refused("edit", str(error)) from None
        number = self._record(name, operation, numbers, links)
        self._state.apply(body.edits, names, lambda: frozenset(self.graph.beyond((number,))))

    def _check_links(self, author: bytes, body: OperationBody, numbers: Sequence[int]) -> Links:
        """Counter, lamport and epoch follow from the predecessors, and from nothing else."""
        parents = [self.graph.links(number) for number in numbers]
        lamport = 1 + max((parent.lamport for parent in parents), default=0)
        counter = 1
        if body.previous > len(parents):
            raise Refused("links", "`previous` names nothing")
        if body.previous:
            own = parents[body.previous - 1]
            if own.author != author:
                raise Refused("links", "`previous` names another author's operation")
            counter = own.counter + 1
        if (body.lamport, body.counter) != (lamport, counter):
            raise Refused("links", f"lamport {lamport} and counter {counter} follow from the past")
        if any(parent.epoch > body.epoch for parent in parents):
            raise Refused("links", f"epoch {body.epoch} is older than the operation's past")
        return Links(author, counter, lamport, body.epoch)

    def _record(
        self, name: bytes, operation: Operation, numbers: Sequence[int], links: Links
    ) -> int:
        number = self.graph.add(name, tuple(dict.fromkeys(numbers)), links)
        self._operations.append(operation)
        return number

    # editing

    @contextmanager
    def edit(self, signer: Signer, epoch: int) -> Iterator[Transaction]:
        """Edit the document; at the end all edits become one signed operation (`.operation`).

        An exception inside leaves the document as it was. No edits, no operation.
        Raises Refused when the author may not write in this epoch.
        """
        self._may_edit(signer, epoch)
        self._join_heads(signer, epoch)
        transaction = Transaction(self._state, self.graph)
        self._editing = True
        try:
            yield transaction
            if transaction.edited:
                transaction.operation = self._commit(transaction, signer, epoch)
        except BaseException:
            if transaction.edited and transaction.operation is None:
                self._rebuild()
            raise
        finally:
            transaction.close()
            self._editing = False

    def _may_edit(self, signer: Signer, epoch: int) -> None:
        assert not self._editing, "finish the transaction first"
        allowed = self._rules.authors.may_write(self.name, signer.public_key, epoch)
        if not allowed or signer.public_key in self._evicted:
            raise Refused("author", f"this key may not write in epoch {epoch}: use a client's key")
        newest = max((self.graph.links(number).epoch for number in self.graph.heads), default=0)
        if epoch < newest:
            raise Refused("links", f"epoch {epoch} is over here: use {newest} or later")

    def _join_heads(self, signer: Signer, epoch: int) -> None:
        """With more heads than an operation may name, join them first, without edits."""
        while len(self.graph.heads) > MAX_HEADS:
            joined = sorted(self.graph.heads)[:MAX_HEADS]
            transaction = Transaction(self._state, self.graph, joined)
            self._commit(transaction, signer, epoch)

    def _commit(self, transaction: Transaction, signer: Signer, epoch: int) -> Operation:
        body = transaction.body(self.name, signer.public_key, epoch)
        encoded = msgspec.msgpack.encode(body)
        sig = signer.sign(operation_signing_bytes(self._rules.genesis, encoded))
        operation = Operation(signer.public_key, encoded, sig)
        self._check_size(operation)
        numbers = [self.graph.numbers[parent] for parent in (*body.heads, *body.names)]
        links = self._check_links(signer.public_key, body, numbers)
        self._record(operation.hash(), operation, numbers, links)
        return operation

    @staticmethod
    def _check_size(operation: Operation) -> None:
        """Our own operation is held to what others are held to."""
        try:
            decode_operation(msgspec.msgpack.encode(operation))
            decode_operation_body(operation.body)
        except msgspec.DecodeError as error:
            raise BadEdit(f"too much for one operation: use several ({error})") from None

    # collecting and keeping

    def material(self, frontier: Collection[bytes]) -> Material:
        """What the image at a frontier is made of. Raises Refused as `collect` does."""
        below = divide(self.graph, self._frontier_numbers(frontier)).below
        return Material(self.name, self._rules, self._image, tuple(self.operations(below)))

    def collect(self, frontier: Collection[bytes], image: bytes | None = None) -> list[Operation]:
        """Forget the operations below an agreed frontier; returns the stranded ones.

        Their authors make those again (`rebase`). `image` is what `material` gave, if it was made
        already. Raises Refused("unknown") while part of the frontier is not here, and
        Refused("frontier") when it does not follow the last one: nothing changes then.
        """
        assert not self._editing, "finish the transaction first"
        numbers = self._frontier_numbers(frontier)
        if set(numbers) == set(self.graph.frontier):
            return []
        division = divide(self.graph, numbers)
        above = list(self.operations(division.above))
        stranded = list(self.operations(division.stranded))
        made = self.material(frontier).image() if image is None else image
        names = sorted(frontier)
        self._image = made
        self._rebuild(())
        assert names == self.heads, "a frontier is the heads of its past"
        self._rebuild(above)
        return stranded

    def adopt(self, image: bytes) -> list[Operation]:
        """Take an agreed image, whose digest was checked, in place of a past that is not here.

        Returns operations that were here and have no place beside it: they are stranded.
        """
        assert not self._editing, "finish the transaction first"
        before = [*self._operations, *self.held]
        self._image, self.held = image, Held()
        self._rebuild(())
        for operation in before:
            self.receive(operation)
        return [one for one in before if one.hash() not in self.graph]

    def drawn(self, last: bytes | None, operations: Iterable[Operation]) -> bytes:
        """Be what these operations make of the last image, all judged before; the new image."""
        self._image = last
        self._rebuild(operations)
        return encode_image(self.graph, self._state)

    @property
    def genesis(self) -> bytes:
        """The hash of the cluster's genesis."""
        return self._rules.genesis

    @property
    def image(self) -> bytes | None:
        """The image that this document stands on; None while nothing was collected."""
        return self._image

    def evict(self, author: bytes, frontier: Collection[bytes]) -> list[Operation]:
        """An author is evicted: of its operations only those in the frontier's past count.

        Returns what is lost: its other operations, and all that follows them, for its honest
        authors to replay. Everyone who knows the frontier drops the same ones, and refuses any
        that come later. Raises Refused("unknown") while part of the frontier is not here.
        """
        assert not self._editing, "finish the transaction first"
        missing = [name for name in frontier if name not in self.graph]
        if missing:
            raise Refused("unknown", f"{len(missing)} operations of the frontier are not here yet")
        graph = self.graph
        past = graph.past(graph.numbers[name] for name in frontier)
        lost: set[int] = set()
        for number in range(graph.floor, len(graph)):
            own = number not in past and graph.links(number).author == author
            if own or not lost.isdisjoint(graph.parents[number]):
                lost.add(number)
        dropped = list(self.operations(sorted(lost)))
        if lost:
            rest = (n for n in range(graph.floor, len(graph)) if n not in lost)
            self._rebuild(list(self.operations(rest)))
        self._evicted[author] = None
        return dropped

    def _frontier_numbers(self, frontier: Collection[bytes]) -> list[int]:
        graph = self.graph
        missing = [name for name in frontier if name not in graph]
        if missing or not frontier:
            raise Refused("unknown", f"{len(missing)} operations of the frontier are not here yet")
        numbers = sorted({graph.numbers[name] for name in frontier})
        if set(numbers) == set(graph.frontier):
            return numbers
        if any(number < graph.floor for number in numbers):
            raise Refused("frontier", "a frontier never moves back")
        for number in numbers:
            if not graph.beyond([other for other in numbers if other != number], (number,)):
                raise Refused("frontier", "one part of the frontier is in the past of another")
        return numbers

    def dump(self) -> bytes:
        """The document as bytes, held operations included: for its owner's disk."""
        return msgspec.msgpack.encode(self.parts())

    def parts(self) -> Dump:
        """The same, not yet as bytes."""
        operations, held = tuple(self._operations), tuple(self.held)
        return Dump(self.name, self._image, operations, held, tuple(self._evicted))

    @classmethod
    def restore(cls, data: bytes, rules: Rules) -> Document:
        """A document from its own dump. Raises msgspec.DecodeError when it is damaged.

        Signatures are not verified again: they were, before the dump was written.
        """
        dump = _decode_dump(data)
        document = cls(dump.name, rules)
        document._image = dump.image
        document._rebuild(dump.operations)
        document._evicted = dict.fromkeys(dump.evicted)
        for operation in dump.held:
            document.receive(operation)
        return document

    def _rebuild(self, operations: Iterable[Operation] | None = None) -> None:
        """Compute the state anew, from the image and these operations (default: those here)."""
        again = self._operations if operations is None else operations
        self._operations = []
        self.generation += 1
        if self._image is None:
            self.graph = Graph()
            self._state = State(Orders(self.graph.order, self.graph.rank))
        else:
            self.graph, self._state = decode_image(self._image)
        for operation in again:
            name = operation.hash()
            if name not in self.graph:  # a file may hold it twice, or below its image
                self._apply(name, operation, decode_operation_body(operation.body))
