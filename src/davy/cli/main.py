"""`davy`: the group of verbs, in the order of the route. A verb's file is imported when it is called, so that help costs nothing."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from davy.cli.output import json_alone
from davy.errors import DavyError, NotFound, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
BUG = 70


class Verb(NamedTuple):
    """What the help of the group says about a verb, without importing it."""

    name: str
    section: str
    summary: str
    example: str


VERBS = tuple(Verb(*row) for row in (
    ("demo", "Begin", "A real year of flights through the whole route.", "davy demo"),
    ("init", "Begin", "Write a small project that runs.", "davy init shop"),
    ("up", "Begin", "Start everything: gateway, workers, pages.", "davy up --port 8080"),
    ("ingest", "Events", "Load a stream's history from its source.", "davy ingest flights"),
    ("push", "Events", "Append events to a stream.", "davy push flights events.jsonl"),
    ("outcomes", "Events", "Tell what turned out to be true.", "davy outcomes push outcomes.parquet"),
    ("train", "Training", "Train a model and register the version.", "davy train late -p learning_rate=0.05"),
    ("runs", "Training", "Find runs, or show one.", "davy runs --order-by metrics.loss"),
    ("sync", "Training", "Send what runs could not, while their server was away.", "davy sync"),
    ("gc", "Training", "Purge what was deleted, with its files.", "davy gc --older-than 30d"),
    ("import", "Training", "Bring runs and models along from MLflow.", "davy import mlflow http://127.0.0.1:5000"),
    ("reproduce", "Training", "Train a run again from its record and grade it.", "davy reproduce RUN"),
    ("gate", "Release", "Judge a version before it may take traffic.", "davy gate late@3"),
    ("traffic", "Serving", "Show or set the weights of versions.", "davy traffic late late@1=0.9 late@2=0.1"),
    ("alias", "Serving", "Show or set names of versions.", "davy alias late production 2"),
    ("predict", "Serving", "Ask a running server for one prediction.", "davy predict returned customer=c07 amount=120.5"),
    ("release", "Release", "Let a version take traffic on evidence.", "davy release late@2"),
    ("status", "Release", "What is live, how releases stand, is it well.", "davy status late"),
    ("promote", "Release", "Give the released version all traffic.", "davy promote late"),
    ("pause", "Release", "Hold a release where it is.", "davy pause late"),
    ("resume", "Release", "Go on with a paused release.", "davy resume late"),
    ("abort", "Release", "End a release; stable takes all traffic.", "davy abort late"),
    ("rollback", "Release", "Back to stable, also after promotion.", "davy rollback late"),
    ("monitor", "Monitoring", "What is known of a model: drift, labels, KPIs.", "davy monitor late"),
    ("alerts", "Monitoring", "What fires, and since when.", "davy alerts"),
    ("replay", "Proof", "Recompute logged vectors; they must be equal.", "davy replay late"),
    ("why", "Proof", "Walk from a prediction back to its commit.", "davy why PREDICTION"),
    ("audit", "Proof", "Verify the journal's chain.", "davy audit"),
    ("user", "Sharing", "Who may log in, and with which role.", "davy user add ada --role scientist"),
    ("token", "Sharing", "Secrets for programs.", "davy token new --name ci --user ada"),
    ("move", "Begin", "To PostgreSQL, or to an object store.", "davy move --database postgresql://davy@db/davy"),
    ("version", "Begin", "Versions of Davy and of what it stands on.", "davy version"),
))
BY_NAME = {verb.name: verb for verb in VERBS}


def _remember(context: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta[f"davy.{param.name}"] = value


def _folder_options() -> list[click.Parameter]:
    return [_folder("--project", "The folder with davy.toml (default: here or above)."),
            _folder("--home", "Where the state lives (default: the project's .davy).")]


def _folder(flag: str, text: str) -> click.Option:
    return click.Option([flag], type=click.Path(file_okay=False), metavar="DIR", expose_value=False, callback=_remember, help=text)


class Route(click.Group):
    """A group whose commands are files, loaded on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb.name for verb in VERBS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = BY_NAME.get(cmd_name)
        if verb is None:
            return None
        command: click.Command = import_module(f"davy.cli.{verb.name}").command
        taken = {param.name for param in command.params}
        command.params.extend(option for option in _folder_options() if option.name not in taken)
        command.short_help = verb.summary
        command.epilog = command.epilog or f"Example: {verb.example}"
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in BY_NAME:
            raise NotFound(f"There is no verb {args[0]!r}.", nearest(args[0], BY_NAME), "See them all: davy --help")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(verb.summary) for verb in VERBS)
        lines = ["davy: features that are the same in training and in serving, and predictions that can be proven.", "",
                 "Usage: davy [--project DIR] [--home DIR] VERB ..."]
        for section in dict.fromkeys(verb.section for verb in VERBS):
            lines += ["", section]
            lines += [f"  {verb.name:10} {verb.summary:{width}}  $ {verb.example}" for verb in VERBS if verb.section == section]
        lines += ["", "davy VERB --help says more. Reading verbs take --json. Exit codes: 0 done, 1 found different or failed,",
                  "2 wrong input, 3 a part is away (try again), 4 stored data is damaged, 130 interrupted."]
        formatter.write("\n".join(lines) + "\n")


@click.group(cls=Route, params=_folder_options(), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="davy", message="davy %(version)s")
def davy() -> None:
    """The group itself does nothing."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line and return its exit code; errors go to stderr in up to three lines."""
    try:
        with json_alone() if "--json" in (sys.argv[1:] if arguments is None else arguments) else nullcontext():
            result = davy.main(args=arguments, prog_name="davy", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except DavyError as error:
        return _complain(str(error), error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else " ".join(["davy", *_verb(sys.argv[1:] if arguments is None else arguments)])
        return _complain(f"{error.format_message()}\nSee what is allowed: {command} --help", 2)
    except click.ClickException as error:
        return _complain(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _complain("Interrupted. What was acknowledged is on disk; the same command can be run again.", INTERRUPTED)
    except BrokenPipeError:
        # The reader has gone (`davy runs | head`); without this, closing stdout complains once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug is shown whole, with a code of its own
        traceback.print_exception(error)
        return _complain("This is a bug in Davy. Please report it with the lines above.", BUG)


def _verb(arguments: Sequence[str]) -> list[str]:
    """The verb of a command line, if it has one: click does not say it of an option whose value is missing."""
    return [word for word in arguments if word in BY_NAME][:1]


def _complain(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code


def main() -> Any:
    """The `davy` program."""
    sys.exit(run())
