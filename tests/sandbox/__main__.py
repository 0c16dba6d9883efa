"""The command line: `python -m sandbox up`, `down`, `status`, `smoke` and more."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sandbox import binaries, bring_up, diagnostics, node, packages, record, smoke, teardown
from sandbox.cluster import Sandbox
from sandbox.images import Images
from sandbox.layout import default_cache, default_state
from sandbox.shell import SandboxError, step

Command = Callable[[Sandbox, argparse.Namespace], None]


def _up(sandbox: Sandbox, arguments: argparse.Namespace) -> None:
    bring_up.up(sandbox, arguments.nodes, arguments.volumes, arguments.image_tar)


def _down(sandbox: Sandbox, _: argparse.Namespace) -> None:
    packages.require_root()
    teardown.down(sandbox.layout, sandbox.processes)


def _status(sandbox: Sandbox, _: argparse.Namespace) -> None:
    nodes = sandbox.nodes
    print(diagnostics.process_summary(sandbox))
    print(sandbox.kubectl("get", "nodes,pv", "--output=wide"), end="")
    for each in nodes:
        if sandbox.processes.alive(node.process_names(each)[0]):
            print(f"images of {each.name}: {' '.join(sorted(_named(node.image_names(each))))}")
        else:
            print(f"{each.name} is stopped")


def _named(images: set[str]) -> set[str]:
    """Images by name: containerd also lists each under its digest."""
    return {image for image in images if not image.startswith("sha256:")}


def _smoke(sandbox: Sandbox, _: argparse.Namespace) -> None:
    smoke.smoke(sandbox)


def _build(sandbox: Sandbox, _: argparse.Namespace) -> None:
    packages.require_root()
    packages.extend_path()
    packages.ensure()
    programs = binaries.ensure(sandbox.cache)
    Images(sandbox.cache).components(programs)
    print(programs)


def _program(name: str) -> Command:
    """A command that becomes kubectl or helm, as administrator."""

    def run_program(sandbox: Sandbox, arguments: argparse.Namespace) -> None:
        _become(sandbox, [str(sandbox.programs / name), *arguments.words])

    return run_program


def _run_in(sandbox: Sandbox, arguments: argparse.Namespace) -> None:
    os.environ["PATH"] = f"{sandbox.programs}:{os.environ['PATH']}"
    _become(sandbox, arguments.words)


def _become(sandbox: Sandbox, words: Sequence[str]) -> None:
    """Replace this process by a command inside the namespace, so that it gets our terminal."""
    packages.require_root()
    record.require_nodes(sandbox.layout)
    command = list(words[1:] if words[:1] == ["--"] else words)
    if not command:
        raise SandboxError("say what to run: python -m sandbox run-in -- COMMAND [ARGUMENTS]")
    os.environ.update(sandbox.environment())
    os.execvp(sandbox.enter[0], [*sandbox.enter, *command])


def _logs(sandbox: Sandbox, arguments: argparse.Namespace) -> None:
    if arguments.gather is not None:
        print(sandbox.logs_on_failure(arguments.gather))
    elif arguments.process is not None:
        print(diagnostics.process_log(sandbox, arguments.process, arguments.lines))
    else:
        print("\n".join(str(sandbox.processes.log(name)) for name in sandbox.processes.names()))


def _load_image(sandbox: Sandbox, arguments: argparse.Namespace) -> None:
    for archive in arguments.archives:
        with step(f"load {archive.name}"):
            sandbox.load_image(archive)


def _base_image(sandbox: Sandbox, _: argparse.Namespace) -> None:
    packages.require_root()
    packages.extend_path()
    packages.ensure()
    print(Images(sandbox.cache).base())


def _build_image(sandbox: Sandbox, arguments: argparse.Namespace) -> None:
    packages.require_root()
    packages.extend_path()
    packages.ensure()
    context: Path = arguments.context
    defaults = [context / "requirements.txt", context / "requirements-build.txt"]
    requirements = arguments.requirements or [path for path in defaults if path.exists()]
    dockerfile = arguments.dockerfile or context / "Dockerfile"
    if not dockerfile.exists():
        raise SandboxError(f"there is no {dockerfile}: name it with --dockerfile")
    values = dict(_split(argument) for argument in arguments.build_arg)
    images = Images(sandbox.cache)
    archive = images.build(arguments.tag, dockerfile, context, requirements, values)
    if arguments.load:
        with step(f"load {archive.name}"):
            sandbox.load_image(archive)
    print(archive)


def _split(argument: str) -> tuple[str, str]:
    name, equals, value = argument.partition("=")
    if not equals:
        raise SandboxError(f"--build-arg {argument}: use NAME=VALUE")
    return name, value


def _node_stop(sandbox: Sandbox, arguments: argparse.Namespace) -> None:
    with step(f"stop {arguments.name}"), record.locked(sandbox.layout):
        sandbox.stop_node(arguments.name)


def _node_start(sandbox: Sandbox, arguments: argparse.Namespace) -> None:
    with step(f"start {arguments.name}"), record.locked(sandbox.layout):
        sandbox.start_node(arguments.name)


def _recycle(sandbox: Sandbox, _: argparse.Namespace) -> None:
    print(f"{sandbox.recycle_volumes()} volumes recycled")


def _kubeconfig(sandbox: Sandbox, arguments: argparse.Namespace) -> None:
    record.require_nodes(sandbox.layout)
    if arguments.service_account is None:
        print(sandbox.kubeconfig)
        return
    namespace, slash, name = arguments.service_account.partition("/")
    if not slash:
        raise SandboxError("--service-account: use NAMESPACE/NAME")
    print(sandbox.service_account_kubeconfig(namespace, name))


def parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    top = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    top.add_argument("--state", type=Path, default=default_state(), help="default: %(default)s")
    top.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(call=command)
        # SUPPRESS: given here it counts, absent here the one before the command does.
        made.add_argument("--state", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        made.add_argument("--cache", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return made

    def add_program(name: str, command: Command, text: str) -> None:
        # No prefix character: every word, also one like `-n`, is for the program.
        made = commands.add_parser(name, help=text, prefix_chars="\0", add_help=False)
        made.set_defaults(call=command)
        made.add_argument("words", nargs=argparse.REMAINDER)

    _add_cluster_commands(add)
    _add_image_commands(add)
    add_program("kubectl", _program("kubectl"), "run kubectl as administrator")
    add_program("helm", _program("helm"), "run helm as administrator")
    add_program("run-in", _run_in, "run a command inside the network namespace")
    return top


def _add_cluster_commands(add: Callable[[str, Command, str], argparse.ArgumentParser]) -> None:
    made = add("up", _up, "bring the sandbox up, or complete it")
    made.add_argument("--nodes", type=int, default=1)
    made.add_argument("--volumes", type=int, default=16, help="per node and access mode")
    made.add_argument("--image-tar", type=Path, action="append", default=[], metavar="FILE")
    add("down", _down, "remove the sandbox and check that nothing is left")
    add("status", _status, "list processes, nodes, volumes and images")
    add("smoke", _smoke, "check that pods, volumes, DNS, Services and rights work")
    made = add("logs", _logs, "list the log files, print one's end, or gather everything")
    made.add_argument("process", nargs="?")
    made.add_argument("--lines", type=int, default=50)
    made.add_argument("--gather", type=Path, metavar="DIRECTORY")
    for name, command, text in (
        ("node-stop", _node_stop, "take the power from a node"),
        ("node-start", _node_start, "start a stopped node again"),
    ):
        add(name, command, text).add_argument("name", metavar="NODE")
    add("recycle-volumes", _recycle, "wipe the volumes whose claims are gone")
    made = add("kubeconfig", _kubeconfig, "print the path of a kubeconfig")
    made.add_argument("--service-account", metavar="NAMESPACE/NAME")


def _add_image_commands(add: Callable[[str, Command, str], argparse.ArgumentParser]) -> None:
    add("build", _build, "build the programs, and print their directory")
    made = add("load-image", _load_image, "import OCI archives into every node")
    made.add_argument("archives", type=Path, nargs="+", metavar="TAR")
    add("base-image", _base_image, "make the base image, and print its name")
    made = add("build-image", _build_image, "build an image, and print its archive's path")
    made.add_argument("--tag", required=True)
    made.add_argument("--dockerfile", type=Path, help="default: CONTEXT/Dockerfile")
    made.add_argument("--requirements", type=Path, action="append", metavar="FILE")
    made.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    made.add_argument("--load", action="store_true", help="import it into every node as well")
    made.add_argument("context", type=Path)


def main() -> int:
    """Run one command; the process's exit code."""
    arguments = parser().parse_args()
    os.umask(0o022)  # a caller's stricter one would lock pods out of their volumes
    try:
        sandbox = Sandbox(arguments.state, arguments.cache)
        arguments.call(sandbox, arguments)
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sandbox: interrupted; `up` completes it, `down` removes it", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
