"""FedProx: FedAvg at the central node; its term goes to the clients with their config."""

from __future__ import annotations

from strategy_scene import path

from fednode.strategies.fedprox import FedProx


def test_two_rounds_are_two_means():
    assert path(FedProx(mu=0.5), 4.0, 6.0) == [[4.0], [6.0]]


def test_every_client_is_sent_mu_with_its_config():
    config = {"epochs": 2, "proximal_mu": 0.0}
    assert FedProx(mu=0.25).configure(config) == {"epochs": 2, "proximal_mu": 0.25}
    assert config == {"epochs": 2, "proximal_mu": 0.0}


def test_it_needs_the_tasks_proximal_term():
    assert FedProx.requires == ("proximal",)
