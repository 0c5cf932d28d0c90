#!/usr/bin/env python3
"""Set up convo's environment in .venv and run a command of the project in it.

It needs only Python 3.10 or newer.

    python3 bootstrap.py demo     from sample dialogues to a conversation, in a few minutes
    python3 bootstrap.py test     the tests (test-slow: the long ones)
    python3 bootstrap.py help     all commands

The environment is created once, and updated if pyproject.toml or constraints.txt changed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
SCRIPTS = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
Command = list[str]

VERBS = {
    "demo": "train, export and talk to a small model on the sample dialogues",
    "check": "format, lint, types, import contracts",
    "format": "rewrite the code in the project's style",
    "test": "the tests that CI runs",
    "test-slow": "the long tests",
    "bench": "the benchmarks",
    "docs": "write the generated pages of docs/",
    "setup": "only create the environment, with the development tools",
    "help": "this list",
}


def main() -> int:
    """Run the verb and return its exit code."""
    verb, rest = (sys.argv[1:2] or ["help"])[0], sys.argv[2:]
    if verb not in VERBS or verb == "help":
        print(__doc__)
        for name, meaning in VERBS.items():
            print(f"  {name:<10} {meaning}")
        return 0 if verb == "help" else 2
    if sys.version_info < (3, 10):
        print(
            f"convo needs Python 3.10 or newer; this is {sys.version.split()[0]}", file=sys.stderr
        )
        return 2
    os.chdir(ROOT)
    set_up(with_tools=verb != "demo")
    os.environ["PATH"] = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
    if verb.startswith("test"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # one test process a core, one thread each
    if verb == "demo":
        return demo()
    return run_all(commands(verb, rest))


def commands(verb: str, rest: Command) -> list[Command]:
    """Return the commands that a verb runs."""
    python = str(SCRIPTS / "python")
    # A file of tests stays in one process, so its fixtures are made once; many short files come
    # last, so the processes end together.
    tests = [python, "-m", "pytest", "-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder"]
    return {
        "check": [
            ["ruff", "format", "--check", "."],
            ["ruff", "check", "."],
            ["mypy"],
            ["lint-imports"],
        ],
        "format": [["ruff", "check", "--fix", "."], ["ruff", "format", "."]],
        "test": [[*tests, *rest]],
        "test-slow": [
            [*tests, "-m", "slow or hypothesis", "--hypothesis-profile", "thorough", *rest]
        ],
        "bench": [
            [python, str(path), *rest] for path in sorted(Path("benchmarks").glob("bench_*.py"))
        ],
        "docs": [
            [python, "-m", "convo_cli.config.reference", "docs/config.md"],
            [python, "-m", "tests.docs.effects.page", "docs/effects.md"],
            [python, "-m", "tests.docs.command_reference", "docs/commands.md"],
            [python, "-m", "tests.docs.problem_reference", "docs/problems.md"],
            [python, "-m", "tests.docs.shapes_reference", "docs/shapes.md"],
            [python, "-m", "tests.docs.metrics_reference", "docs/evaluation.md"],
        ],
        "setup": [],
    }[verb]


def demo() -> int:
    """Run the whole path in directories that no earlier demo used."""
    started = time.monotonic()
    number = next(
        n
        for n in range(1, 10_000)
        if not any(Path(d, f"demo-{n}").exists() for d in ("runs", "exports"))
    )
    name = f"demo-{number}"
    config, export = f"runs/{name}.yaml", f"exports/{name}"
    Path("runs").mkdir(exist_ok=True)
    code = run_all(
        [
            ["convo", "validate-data", "sample_data/train.jsonl", "sample_data/valid.jsonl"],
            ["convo", "init-config", "--output", config, "--force"],
            ["convo", "train", config, "--set", f"name={name}"],
            ["convo", "export", f"runs/{name}", export],
            ["convo", "chat", export, "--temperature", "0"],
        ],
        last_input="Hello! How are you?\n",
    )
    if code == 0:
        print(
            f"\nDone in {time.monotonic() - started:.0f} s.\n"
            f"  config  {config}\n  run     runs/{name}   (metrics.jsonl, samples.jsonl, plots/, "
            "checkpoints/)\n"
            f"  model   {export}\n\n"
            "What to try next:\n"
            f"  {_shell(SCRIPTS / 'convo')} chat {export}\n"
            f"  {_shell(SCRIPTS / 'convo')} resume runs/{name} --set training.max_steps=600\n"
            f"  {_shell(SCRIPTS / 'convo')} validate-data sample_data/broken.jsonl\n"
            f"  {_shell(SCRIPTS / 'convo')} init-config --list-presets"
        )
    return code


def run_all(steps: list[Command], last_input: str | None = None) -> int:
    """Run the commands in order until one fails; ``last_input`` is the stdin of the last one."""
    for position, step in enumerate(steps):
        text = last_input if position == len(steps) - 1 else None
        print(f"\n$ {' '.join(step)}" + (f"   <<< {text.strip()}" if text else ""), flush=True)
        executable = SCRIPTS / (step[0] + (".exe" if os.name == "nt" else ""))
        command = [str(executable) if executable.exists() else step[0], *step[1:]]
        code = subprocess.run(
            command, input=text, text=True, encoding="utf-8", check=False
        ).returncode
        if code != 0:
            return code
    return 0


def set_up(*, with_tools: bool) -> None:
    """Create or update .venv, unless it already matches pyproject.toml and constraints.txt."""
    content = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    wanted = hashlib.sha256(content + str(ROOT).encode() + sys.version.encode()).hexdigest()
    stamp = ENVIRONMENT / "convo-installed"
    have = stamp.read_text().split() if stamp.exists() else []
    if have[:1] == [wanted] and (not with_tools or "tools" in have):
        return
    print(
        f"setting up {ENVIRONMENT} (once; PyTorch is most of the download)",
        file=sys.stderr,
        flush=True,
    )
    is_there = (ENVIRONMENT / "pyvenv.cfg").exists()
    is_outdated = bool(have) and have[:1] != [wanted]
    try:
        is_inside = Path(sys.prefix) == ENVIRONMENT
        if not is_inside and (is_outdated or not is_there):
            venv.create(ENVIRONMENT, with_pip=True, clear=is_there)
    except subprocess.CalledProcessError:
        sys.exit(
            "Python's venv module cannot install pip here; on Debian and Ubuntu: apt install "
            "python3-venv"
        )
    target = ".[dev]" if with_tools or "tools" in have else "."
    install = [str(SCRIPTS / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", "constraints.txt", "-e", target], check=True)
    stamp.write_text(f"{wanted}\n" + ("tools\n" if target != "." else ""))


def _shell(path: Path) -> str:
    relative = str(path.relative_to(ROOT))
    return f'"{relative}"' if " " in relative else relative


if __name__ == "__main__":
    sys.exit(main())
