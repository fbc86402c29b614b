"""`davy alerts`: the state of every rule."""

from __future__ import annotations

import click

from davy.cli import open_home
from davy.cli.output import note, print_json, table, when


@click.command
@click.argument("model", required=False)
@click.option("--all", "everything", is_flag=True, help="Also those that are resolved.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array: rule, subject, state, since, value, text.")
def command(model: str | None, everything: bool, as_json: bool) -> None:
    """What fires, of MODEL or of all.

    Rules stand in davy.toml, as [[alerts]]; drift, skew and errors are watched without any. The exit code is 0 also when something
    fires: this command tells, it does not judge.
    """
    from davy.monitoring.alerts import rules_of
    from davy.monitoring.summary import alert_states

    home = open_home()
    try:
        states = [state for state in alert_states(home, model) if everything or state.state != "resolved"]
        rules, problems = rules_of(home)
    finally:
        home.close()
    for problem in problems:
        note(str(problem))
    if as_json:
        print_json(states)
        return
    table([{"rule": state.rule, "about": state.subject, "state": state.state, "since": when(state.since), "value": state.value, "what": state.text}
           for state in states], empty=f"Nothing fires. {len(rules)} rules are watched: {', '.join(rule.name for rule in rules)}.")
