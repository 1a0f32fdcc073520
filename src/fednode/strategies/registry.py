"""The strategies by name, and their settings as one schema for forms, `--set`, the API and the docs.

A run of a central node names an installed one; a simulation may bring a file or a class. Found by `own_code.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import cast

from fednode.core.json import JsonObject
from fednode.own_code import Shelf, is_file_spec, refusal_of_file, source_fingerprint
from fednode.strategies.base import Strategy, require_usable
from fednode.strategies.built_in import STRATEGIES
from fednode.tasks.base import config_schema, parse_config


@dataclass(frozen=True, kw_only=True)
class StrategyType:
    """A strategy that is there: its class, and what a run's config calls it."""

    name: str                   # `fedavgm`, or `clippedavg#` + the hash of its file's source
    kind: type[Strategy]

    def bind(self, config: JsonObject) -> Strategy:
        """An instance with the settings `config`, defaults filled in. Raises BadConfig naming the fields."""
        return cast(Strategy, parse_config(self.kind, config, "strategy"))

    def complete(self, config: JsonObject) -> JsonObject:
        """`config` with everything that it leaves out, as a run keeps it. Raises BadConfig."""
        return asdict(self.bind(config))


def installed_strategies() -> list[str]:
    """Names of the strategies that come with fednode, then of those of other installed packages."""
    return _SHELF.names()


def installed_strategy(name: str) -> StrategyType:
    """Raises NotFound, with the list of strategies; BadConfig for a file: a central node takes none."""
    if is_file_spec(name):
        raise refusal_of_file(name)
    return StrategyType(name=name, kind=_SHELF.installed(name))


def own_strategy(spec: str | type[Strategy]) -> StrategyType:
    """An installed one, that of file.py:Class, or the class. Raises NotFound, TaskFailed (its code raises)."""
    if isinstance(spec, str) and not is_file_spec(spec):
        return installed_strategy(spec)
    kind = cast(type[Strategy], _SHELF.in_file(spec) if isinstance(spec, str) else _SHELF.checked(spec))
    return StrategyType(name=_SHELF.name_of(kind) or source_fingerprint(kind, kind.__name__.lower()), kind=kind)


def load_strategy(name: str, config: JsonObject) -> Strategy:
    """The installed strategy `name` with the settings `config`, defaults filled in. Raises NotFound, BadConfig."""
    return installed_strategy(name).bind(config)


def strategy_schema(name: str) -> JsonObject:
    """JSON schema of the settings, with their defaults. Raises NotFound."""
    return config_schema(installed_strategy(name).kind)


_SHELF = Shelf(
    word="strategy", base=Strategy, group="fednode.strategies", require=require_usable, built_in=STRATEGIES,
    own="one of your own is simulated as file.py:Class, or installed at the central node",
)
