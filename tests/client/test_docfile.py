"""Documents on disk: what was acknowledged is there after any crash."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from client.crdt.people import document, rules, signers
from dwcp.crdt import Document, Operation
from dwcp.docfile import DocumentFile, DocumentFileBusy, DocumentFileError, DocumentFileFull


def write(doc: Document, text: str, person: int = 0) -> Operation:
    with doc.edit(signers(4)[person], epoch=0) as edit:
        edit.insert("body", 0, text)
    assert edit.operation is not None
    return edit.operation


def test_what_was_appended_is_there_again(tmp_path: Path) -> None:
    notes, list_ = document("notes"), document("list")
    file = DocumentFile(tmp_path / "documents.db")
    first = write(notes, "hello ")
    file.append([("notes", first), ("list", write(list_, "milk"))], waiting=[first.hash()])
    file.append([("notes", write(notes, "more "))])
    file.close()
    file = DocumentFile(tmp_path / "documents.db")
    loaded = file.load(rules())
    assert {d.name: d.view() for d in loaded.store} == {
        "notes": notes.view(),
        "list": list_.view(),
    }
    assert loaded.waiting == {first.hash()}
    assert not loaded.damaged
    file.safe([first.hash()])
    assert not file.load(rules()).waiting
    file.close()


def test_a_collected_document_is_there_again(tmp_path: Path) -> None:
    notes = document("notes")
    file = DocumentFile(tmp_path / "documents.db")
    file.append([("notes", write(notes, f"{number} ")) for number in range(20)])
    notes.collect(notes.heads)
    notes.evict(signers(4)[3].public_key, notes.heads)
    file.replace(notes.parts())
    file.append([("notes", write(notes, "after "))])
    file.close()
    file = DocumentFile(tmp_path / "documents.db")
    (again,) = file.load(rules()).store
    assert again.dump() == notes.dump()
    file.close()


def test_a_damaged_row_is_left_out_and_what_follows_is_held(tmp_path: Path) -> None:
    notes = document("notes")
    operations = [write(notes, f"{number} ") for number in range(5)]
    file = DocumentFile(tmp_path / "documents.db")
    file.append([("notes", operation) for operation in operations])
    file.close()
    db = sqlite3.connect(tmp_path / "documents.db")
    db.execute("UPDATE operations SET operation = zeroblob(length(operation)) WHERE number = 3")
    db.commit()
    db.close()
    file = DocumentFile(tmp_path / "documents.db")
    loaded = file.load(rules())
    assert loaded.damaged == 1
    (again,) = loaded.store
    assert again.view() == {"body": "1 0 "}
    assert len(again.held) == 2
    again.receive(operations[2])  # as anti-entropy brings it
    assert again.view() == notes.view()
    file.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    file = DocumentFile(tmp_path / "documents.db")
    with pytest.raises(DocumentFileBusy, match="another process"):
        DocumentFile(tmp_path / "documents.db")
    file.close()
    DocumentFile(tmp_path / "documents.db").close()


def test_a_full_disk_takes_nothing_and_room_takes_all(tmp_path: Path) -> None:
    file = DocumentFile(tmp_path / "documents.db")
    notes = document("notes")
    kept = write(notes, "kept ")
    file.append([("notes", kept)])
    pages = file._db.execute("PRAGMA page_count").fetchone()[0]
    file._db.execute(f"PRAGMA max_page_count={pages}")
    many = [("notes", write(notes, "x" * 2000)) for _ in range(50)]
    with pytest.raises(DocumentFileFull):
        file.append(many)
    (only,) = file.load(rules()).store
    assert only.view() == {"body": "kept "}
    file._db.execute("PRAGMA max_page_count=1000000")
    file.append(many)
    (whole,) = file.load(rules()).store
    assert whole.view() == notes.view()
    file.close()


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "documents.db").write_bytes(b"no database" * 1000)
    with pytest.raises(DocumentFileError, match=r"documents\.db"):
        DocumentFile(tmp_path / "documents.db")


WRITER = """
import sys
from pathlib import Path
from client.crdt.people import document
from client.test_docfile import write
from dwcp.docfile import DocumentFile
notes, file = document("notes"), DocumentFile(Path(sys.argv[1]))
for number in range(100_000):
    file.append([("notes", write(notes, f"{number} "))])
    print(number, flush=True)
"""


@pytest.mark.processes
def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "documents.db"
    command = [sys.executable, "-c", WRITER, str(path)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as writer:
        assert writer.stdout is not None
        acknowledged = -1
        for line in writer.stdout:
            acknowledged = int(line)
            if acknowledged >= 200:
                writer.send_signal(signal.SIGKILL)
                break
        rest = writer.stdout.read().split()
    acknowledged = int(rest[-1]) if rest else acknowledged
    file = DocumentFile(path)
    loaded = file.load(rules())
    (again,) = loaded.store
    assert not loaded.damaged
    assert len(again.graph) >= acknowledged + 1 > 200
    file.close()
