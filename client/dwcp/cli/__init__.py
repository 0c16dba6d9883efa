"""The `dwcp` command."""

from __future__ import annotations

import logging
import sys
from pathlib import Path


def main() -> None:
    """Run the command line; also as `kubectl dwcp`."""
    if not __debug__:
        sys.exit("dwcp does not run under `python -O`: its invariants are asserts")
    # commands say what matters themselves; without a handler it would appear twice
    logging.getLogger("dwcp").addHandler(logging.NullHandler())
    from dwcp.cli.group import dwcp

    plugin = Path(sys.argv[0]).name.startswith("kubectl-")
    dwcp.main(prog_name="kubectl dwcp" if plugin else "dwcp")
