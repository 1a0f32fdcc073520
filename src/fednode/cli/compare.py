"""`fednode runs compare`: runs beside one another, and the federated model against each client's own local-only run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fednode.cli import options as o
from fednode.cli.output import Voice
from fednode.core.units import count_text, number_text, seconds_text


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="2 to 5 runs, each by its number (12 or #12), its id, or the id's first letters. One, where its clients trained alone.")],
    as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None,
) -> None:
    """Runs beside one another: what differs between them, which scored best."""
    from fednode.cli.api import ask

    found = ask(lambda api: api.compare(runs), central, token, ca)
    voice = Voice(as_json)
    if as_json:
        voice.result(found)
        return
    _tell_runs(voice, found["runs"])
    _tell_scores(voice, found["runs"], found["metrics"])
    _tell_settings(voice, found["runs"], found["settings"])
    for caution in found["cautions"]:
        voice.say(f"Note: {caution}")
    if found["alone"]:
        voice.say("")
        tell_alone(voice, found["alone"])


def tell_alone(voice: Voice, table: dict[str, Any]) -> None:
    """The table of local-only runs. Also the demo's last word."""
    name, num_clients = table["name"], table["num_clients"]
    voice.say(f"The federated model (run #{table['run']}) against each client's own local-only run, by {name}:")
    rows = [
        (
            row["client"], number_text(row["federated"]), number_text(row["alone"]), f"{row['difference']:+.4f}",
            f"{count_text(row['num_examples'], 'example')}, {count_text(row['rounds'], 'round')}", f"#{row['run']}",
        )
        for row in table["clients"]
    ]
    mean = table["mean"]
    last = ("mean", number_text(mean["federated"]), number_text(mean["alone"]), f"{mean['difference']:+.4f}", "", "")
    voice.table(("client", "federated", "alone", "difference", "alone it saw", "run"), [*rows, last], marked=[len(rows)])
    voice.say("Each client scored both models on its own test data. Alone, a model saw that client's examples only;")
    voice.say(f"the federated one learnt from {num_clients} clients in {count_text(table['rounds'], 'round')}. No example left its client.")
    if table["goal"] == "min":
        voice.say(f"Lower is better in {name}.")


def _tell_runs(voice: Voice, runs: list[dict[str, Any]]) -> None:
    rows = [
        (
            f"#{run['number']}", run["task"], run["strategy"], run["status"], f"{run['rounds']}/{run['rounds_planned']}",
            str(len(run["clients"])), seconds_text(run["seconds"]),
        )
        for run in runs
    ]
    voice.table(("run", "task", "strategy", "status", "rounds", "clients", "time"), rows)
    voice.say("")


def _tell_scores(voice: Voice, runs: list[dict[str, Any]], metrics: list[dict[str, Any]]) -> None:
    if not metrics:
        voice.say("No score yet: a round's model is scored in the round after it.")
        return
    rows = [(metric["name"], *_scores(metric), _ahead(runs, metric)) for metric in metrics]
    voice.table(("score", *_titles(runs), "best"), rows)
    voice.say("")


def _scores(metric: dict[str, Any]) -> list[str]:
    """The best one has a star."""
    return [
        number_text(value) + ("*" if place == metric["best"] else "") for place, value in enumerate(metric["values"])
    ]


def _ahead(runs: list[dict[str, Any]], metric: dict[str, Any]) -> str:
    return "" if metric["best"] is None else f"#{runs[metric['best']]['number']}"


def _tell_settings(voice: Voice, runs: list[dict[str, Any]], settings: list[dict[str, Any]]) -> None:
    """What differs comes first, with a star."""
    ordered = sorted(settings, key=lambda row: not row["differs"])
    rows = [("*" if row["differs"] else "", row["name"], *row["texts"]) for row in ordered]
    num_different = sum(row["differs"] for row in settings)
    voice.table(("", "setting", *_titles(runs)), rows, marked=range(num_different))
    voice.say(f"* {num_different} of {len(settings)} settings differ.")


def _titles(runs: list[dict[str, Any]]) -> list[str]:
    return [f"#{run['number']}" for run in runs]
