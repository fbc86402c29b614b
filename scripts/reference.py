"""Write docs/reference/cli.md and docs/reference/errors.md from the code; `--check` only says whether they are up to date."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path

import click

from davy import errors
from davy.cli.main import VERBS

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
NOTE = "<!-- Written by `make docs`. -->\n"


CLI_HEAD = f"""
# Command line
{NOTE}
`davy VERB --help` says the same in the terminal. Every verb takes `--project DIR` (the folder with davy.toml; default: here or above)
and `--home DIR` (where the state lives; default: the project's `.davy`), before or after its name. Progress and notes go to stderr,
results to stdout; with `--json` the result is one JSON object on one line.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a comparison came out different, or something failed |
| 2 | wrong input: nothing was changed |
| 3 | a part is away; the same command may succeed later |
| 4 | stored data is damaged |
| 70 | a bug in Davy |
| 130 | interrupted with Ctrl-C |
"""


def cli() -> str:
    """Every verb with its help."""
    parts = [CLI_HEAD.strip()]
    for section in dict.fromkeys(verb.section for verb in VERBS):
        parts += ["", f"## {section}"]
        for verb in (verb for verb in VERBS if verb.section == section):
            command = import_module(f"davy.cli.{verb.name}").command
            parts += ["", f"### davy {verb.name}", "", *_verb(command, verb.name), "", "```sh", verb.example, "```"]
            for name, inner in (command.commands if isinstance(command, click.Group) else {}).items():
                parts += ["", f"#### davy {verb.name} {name}", "", *_verb(inner, f"{verb.name} {name}")]
    return "\n".join(parts) + "\n"


def _verb(command: click.Command, name: str) -> list[str]:
    usage = " ".join(["davy", name, *(piece for piece in command.collect_usage_pieces(click.Context(command)) if piece != "[OPTIONS]")])
    lines = [inspect.cleandoc(command.help or "").replace("\b\n", ""), "", f"`{usage}`"]
    options = [param for param in command.params if isinstance(param, click.Option) and param.name not in ("project", "home", "help") and not param.hidden]
    if options:
        lines += ["", "| option | |", "|---|---|"]
        lines += [f"| `{_spelling(option)}` | {' '.join((option.help or '').split()).replace('|', '/')} |" for option in options]
    return lines


def _spelling(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {option.make_metavar(click.Context(click.Command('x')))}".replace("|", "/")


def error_tree() -> str:
    """Every error class."""
    parts = ["# Errors", NOTE, "Every error says three things: what came, what is allowed, what to type next. In Python they are attributes of",
             "`davy.errors.DavyError` (`came`, `allowed`, `fix`); over HTTP they are `{\"error\", \"message\", \"allowed\", \"fix\"}`; on the command line",
             "they are lines on stderr. *Try again* says whether the same call can succeed later.", "",
             "| class | kind of | when | HTTP | exit code | try again |", "|---|---|---|---|---|---|"]
    for kind in _classes():
        parent = kind.__bases__[0].__name__
        parts.append(f"| `{kind.__name__}` | `{parent}` | {inspect.getdoc(kind)} | {kind.status} | {kind.exit_code} | {'yes' if kind.retry else 'no'} |")
    return "\n".join(parts) + "\n"


def _classes() -> list[type[errors.DavyError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DavyError)]


PAGES = {"cli.md": cli, "errors.md": error_tree}


def main() -> int:
    """0 when all pages are up to date now."""
    stale = [name for name, write in PAGES.items() if not (FOLDER / name).exists() or (FOLDER / name).read_text() != write()]
    if "--check" in sys.argv:
        print("\n".join(f"docs/reference/{name} is stale: make docs" for name in stale))
        return 1 if stale else 0
    for name in stale:
        (FOLDER / name).write_text(PAGES[name]())
        print(f"docs/reference/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
