"""A round's bars, worked out by hand: opened at 100 s, ended at 110 s, so a second is 100 thousandths."""

from __future__ import annotations

from fednode.central.timeline import Line, lines_of, slowest
from fednode.core.records import Round
from fednode.core.status import AssignmentStatus, RoundKind, RoundStatus
from fednode.store.history import ClientInRound, RoundView

OPENED_S = 100.0


def view(*parts: ClientInRound, ended_s: float | None = 110.0, kind: RoundKind = RoundKind.TRAIN) -> RoundView:
    round_ = Round(
        run_id="run_1", number=1, attempt=1, kind=kind, cohort=("a",), config={}, base_model="m", budget_s=600.0,
        status=RoundStatus.COMMITTED if ended_s else RoundStatus.OPEN,
    )
    return RoundView(
        round=round_, budget_left_s=1.0, opened_s=OPENED_S, ended_s=ended_s, num_clients=len(parts), num_updates=0,
        clients=parts, metrics={},
        model_sha256=None,
    )


def part(client: str = "a", **times: float) -> ClientInRound:
    return ClientInRound(client=client, status=AssignmentStatus.LEASED, deliveries=1, **times)  # type: ignore[arg-type]


def bars(line: Line) -> list[tuple[str, int, int]]:
    return [(bar.step, bar.left, bar.width) for bar in line.bars]


def test_every_step_has_its_bar() -> None:
    (line,) = lines_of(view(part(leased_s=101.0, sent_s=106.0, received_s=108.0)), now_s=999.0)
    assert bars(line) == [("wait", 0, 100), ("train", 100, 500), ("upload", 600, 200), ("rest", 800, 200)]
    assert line.told == "waited 1.0 s, evaluated and trained 5.0 s, uploaded 2.0 s, others and aggregation 2.0 s"
    assert line.busy_s == 8.0


def test_what_still_goes_on_ends_now() -> None:
    (line,) = lines_of(view(part(leased_s=101.0), ended_s=None), now_s=104.0)
    assert bars(line) == [("wait", 0, 250), ("train", 250, 750)]


def test_who_has_not_begun_waits() -> None:
    (line,) = lines_of(view(part(), ended_s=None), now_s=105.0)
    assert bars(line) == [("wait", 0, 1000)]


def test_who_never_began_has_no_bars_once_the_round_has_ended() -> None:
    (line,) = lines_of(view(part()), now_s=999.0)
    assert (bars(line), line.told) == ([], "nothing yet")


def test_a_round_that_only_measures_trains_nobody() -> None:
    (line,) = lines_of(view(part(leased_s=101.0), kind=RoundKind.EVALUATE), now_s=999.0)
    assert bars(line) == [("wait", 0, 100), ("work", 100, 900)]


def test_no_bar_leaves_the_picture_however_short_or_late() -> None:
    (line,) = lines_of(view(part(leased_s=109.9999, sent_s=109.99995, received_s=109.99999)), now_s=999.0)
    assert all(bar.left >= 0 and bar.width >= 3 and bar.left + bar.width <= 1000 for bar in line.bars)
    assert len(line.bars) == 4


def test_the_slowest_are_kept_in_name_order() -> None:
    parts = [part(name, leased_s=101.0, received_s=101.0 + took) for name, took in (("a", 1), ("b", 8), ("c", 5))]
    assert [line.part.client for line in slowest(lines_of(view(*parts), 0.0), 2)] == ["b", "c"]
