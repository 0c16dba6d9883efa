"""Certificates in files, as servers here show them: read anew when the files change.

cert-manager and Kubernetes replace the files of a Secret while the server runs. Nobody is told, so
a handshake looks first: files that have changed and fit together count from that handshake on;
such as do not fit yet, or are gone, are left for the next one, and what was read last goes on.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate and its key, PEM files in the shape of cert-manager.

    authority: callers must show a certificate that one of these vouches for; None lets anybody in.
    """

    certificate: Path
    key: Path
    authority: Path | None = None

    def context(self) -> ssl.SSLContext:
        """The context of the accepting side, from what the files hold now.

        Raises OSError or ssl.SSLError when they are missing or do not belong together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # a key that wants a password is refused: the library would ask a terminal for it
        context.load_cert_chain(self.certificate, self.key, password="")
        if self.authority is not None:
            context.load_verify_locations(self.authority)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def stamps(self) -> tuple[_Stamp, ...]:
        """Differ when a file does. Raises OSError."""
        files = (self.certificate, self.key, *([self.authority] if self.authority else []))
        return tuple(_stamp(path) for path in files)


def _stamp(path: Path) -> _Stamp:
    """Differs when the file does. Raises OSError."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


class Renewed:
    """The files' newest contents that fit together. Raises what `TlsFiles.context` does."""

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self._stamps = files.stamps()
        self.context = files.context()
        self._told: object = None

    def look(self) -> bool:
        """Read the files when they have changed; True when they then fit together."""
        try:
            stamps = self.files.stamps()
            if stamps == self._stamps:
                return False
            context = self.files.context()
        except OSError as error:  # ssl.SSLError is one
            if str(error) != self._told:
                _log.warning("%s can not be used yet: %s", self.files.certificate, error)
            self._told = str(error)
            return False
        self._stamps, self.context, self._told = stamps, context, None
        return True


def renewing_context(files: TlsFiles) -> ssl.SSLContext:
    """A server's context that follows its files from one handshake to the next.

    Raises OSError or ssl.SSLError when they can not be used now.
    """
    renewed = Renewed(files)
    outer = files.context()

    def choose(connection: ssl.SSLObject, _name: str | None, _outer: Any) -> None:
        renewed.look()
        connection.context = renewed.context

    outer.sni_callback = choose  # is called without a name too
    return outer


class FollowedAuthority(ssl.SSLContext):
    """A client's context that trusts what a file of authorities holds when it connects.

    What was trusted before goes on being so until the process ends: a certificate of the old
    authority is good until its own end. Make one with `follow`.
    """

    _file: Path
    _stamp: _Stamp

    @classmethod
    def follow(cls, file: Path) -> FollowedAuthority:
        """Raises OSError or ssl.SSLError when the file can not be used."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context._file, context._stamp = file, _stamp(file)
        context.load_verify_locations(file)
        return context

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """As every event loop begins a handshake."""
        try:
            stamp = _stamp(self._file)
            if stamp != self._stamp:
                self.load_verify_locations(self._file)
                self._stamp = stamp
        except OSError as error:
            _log.warning("%s can not be used now: %s", self._file, error)
        return super().wrap_bio(*arguments, **named)
