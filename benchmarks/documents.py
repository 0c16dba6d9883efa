"""Real editing traces through our documents and, beside them, through pycrdt.

    python benchmarks/documents.py --traces DIR [--json FILE] [--write PAGE] [--only NAME]

Each measurement runs in a process of its own, one after another: processor time of editing (one
author's replica), of receiving (another replica takes all operations or updates, as bytes), and the
resident memory that each of the two added. DIR holds traces as gzipped JSON (`patches`,
`end_content`). pycrdt is measured where it is installed; it signs and verifies nothing, and counts
positions in UTF-8 bytes, so that it takes only the traces that are ASCII.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil

from dwcp.crdt import Document, Rules
from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.wire.documents import decode_operation

Patches = list[list[Any]]
BEGIN = "<!-- benchmark:begin -->"
END = "<!-- benchmark:end -->"


@dataclass(frozen=True)
class Figures:
    """Processor seconds, bytes on the wire, resident megabytes that editing and receiving added."""

    trace: str
    engine: str
    edits: int
    edit_s: float
    receive_s: float
    wire_bytes: int
    edit_mb: float
    receive_mb: float
    equal: bool


class Everyone:
    """Authors for a benchmark: all may write."""

    def may_write(self, *_: object) -> bool:
        return True


def groups(patches: Patches, size: int) -> Iterator[Patches]:
    return (patches[at : at + size] for at in range(0, len(patches), size))


def new_document() -> Document:
    return Document("trace", Rules(bytes(32), Ed25519Verifier(remembered_max=1), Everyone()))


def dwcp_edit(patches: Patches, size: int) -> tuple[str, list[bytes], Any]:
    document, signer = new_document(), Ed25519Signer(bytes(32))
    for group in groups(patches, size):
        with document.edit(signer, epoch=0) as transaction:
            for position, deleted, inserted in group:
                transaction.delete("text", position, deleted)
                transaction.insert("text", position, inserted)
    wire = [msgspec.msgpack.encode(operation) for operation in document.operations()]
    return document.get("text", "text"), wire, document


def dwcp_receive(wire: list[bytes]) -> tuple[str, Any]:
    document = new_document()
    for data in wire:
        received = document.receive(decode_operation(data))
        assert received.outcome == "applied", received
    return document.get("text", "text"), document


def pycrdt_edit(patches: Patches, size: int) -> tuple[str, list[bytes], Any]:
    from pycrdt import Doc, Text

    document: Any = Doc()
    document["text"] = text = Text()
    wire: list[bytes] = []
    document.observe(lambda event: wire.append(event.update))
    for group in groups(patches, size):
        with document.transaction():
            for position, deleted, inserted in group:
                if deleted:
                    del text[position : position + deleted]
                if inserted:
                    text.insert(position, inserted)
    return str(text), wire, document


def pycrdt_receive(wire: list[bytes]) -> tuple[str, Any]:
    from pycrdt import Doc, Text

    document: Any = Doc()
    document["text"] = text = Text()
    for update in wire:
        document.apply_update(update)
    return str(text), document


Edit = Callable[[Patches, int], tuple[str, list[bytes], Any]]
Receive = Callable[[list[bytes]], tuple[str, Any]]
ENGINES: dict[str, tuple[Edit, Receive, int]] = {
    "dwcp, 100 edits each": (dwcp_edit, dwcp_receive, 100),
    "dwcp, 1 edit each": (dwcp_edit, dwcp_receive, 1),
    "pycrdt, 100 edits each": (pycrdt_edit, pycrdt_receive, 100),
    "pycrdt, 1 edit each": (pycrdt_edit, pycrdt_receive, 1),
}


def resident_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


def measure(path: Path, engine: str) -> Figures:
    """One trace through one engine, in this process."""
    trace = json.loads(gzip.decompress(path.read_bytes()))
    patches: Patches = trace["patches"]
    edit, receive, size = ENGINES[engine]
    empty_mb = resident_mb()
    begin = time.process_time()
    text, wire, _kept = edit(patches, size)
    edit_s = time.process_time() - begin
    edited_mb = resident_mb()
    begin = time.process_time()
    copy, _kept_too = receive(wire)
    receive_s = time.process_time() - begin
    return Figures(
        path.name.removesuffix(".json.gz"),
        engine,
        len(patches),
        round(edit_s, 2),
        round(receive_s, 2),
        sum(map(len, wire)),
        round(edited_mb - empty_mb, 1),
        round(resident_mb() - edited_mb, 1),
        text == copy == trace["end_content"],
    )


def in_a_process(path: Path, engine: str) -> Figures:
    command = [sys.executable, __file__, "--one", str(path), engine]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return Figures(**json.loads(found.stdout))


def table(rows: list[Figures]) -> str:
    lines = [
        "| trace | edits | engine | edit s | receive s | wire MB | edit MB | receive MB | text |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.trace} | {row.edits} | {row.engine} | {row.edit_s} | {row.receive_s} "
        f"| {row.wire_bytes / 1e6:.2f} | {row.edit_mb} | {row.receive_mb} "
        f"| {'equal' if row.equal else 'DIFFERS'} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path, help="directory of *.json.gz")
    parser.add_argument("--write", type=Path, help="put the table into this page, at its markers")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--only", default="", help="traces whose name contains this")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(asdict(measure(Path(arguments.one[0]), arguments.one[1]))))
        return 0
    if arguments.traces is None:
        parser.error("--traces DIR is needed")
    beside = importlib.util.find_spec("pycrdt") is not None
    engines = [name for name in ENGINES if beside or not name.startswith("pycrdt")]
    version = importlib.metadata.version("pycrdt") if beside else "not installed"
    rows = []
    for path in sorted(arguments.traces.glob("*.json.gz")):
        if arguments.only not in path.name:
            continue
        trace = json.loads(gzip.decompress(path.read_bytes()))
        plain = all(inserted.isascii() for _, _, inserted in trace.get("patches", []))
        if "patches" in trace:
            fit = [name for name in engines if plain or not name.startswith("pycrdt")]
            rows += [in_a_process(path, engine) for engine in fit]
    head = f"Python {platform.python_version()}, pycrdt {version}; processor seconds, megabytes."
    print(f"{head}\n\n{table(rows)}")
    if arguments.write:
        page = arguments.write.read_text()
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        assert after, f"{arguments.write} has no {BEGIN} ... {END}"
        arguments.write.write_text(f"{before}{BEGIN}\n{head}\n\n{table(rows)}\n{END}{after}")
    if arguments.json:
        data = {"python": platform.python_version(), "pycrdt": version}
        rows_json = [asdict(row) for row in rows]
        arguments.json.write_text(json.dumps(data | {"figures": rows_json}, indent=1) + "\n")
    return 0 if all(row.equal for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
