"""Epsilon: Flower's accountant, asked only where its answer is true."""

from __future__ import annotations

import json
import logging
import random
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message
from flwr.serverapp import (
    NeighboringRelation,
    PrivacyConfig,
    RdpAccountant,
    SamplingMethod,
)
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

from fedserver.guard import GuardStrategy
from fedserver.loop import run_rounds
from fedserver.options import ServerConfig
from fedserver.privacy import AccountingConfig, CentralDpConfig, NotReleased
from fedserver.privacy.accounting import Account
from fedserver.privacy.strategy import PrivateStrategy
from telemetry.domain import NoiseRecord
from tests.fedserver.fakes import (
    FakeGrid,
    ask,
    bytes_of,
    evaluated,
    model,
    trained,
    update,
    values_of,
)

ACCOUNTING = AccountingConfig(delta=1e-5, population=10)


def accounted(**values: Any) -> CentralDpConfig:
    """Options under which an epsilon is true: five of ten clients, equal weights."""
    given = {"noise_multiplier": 1.0, "clipping_norm": 2.0, "num_sampled_clients": 5}
    return CentralDpConfig(**{**given, "weights": "equal", "accounting": ACCOUNTING, **values})


def flowers() -> RdpAccountant:
    """Flower's own accountant for the same."""
    return RdpAccountant(
        PrivacyConfig(
            target_delta=1e-5,
            population_size=10,
            neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
            sampling_method=SamplingMethod.NO_AMPLIFICATION,
        )
    )


def play(strategy: Any, nodes: range = range(1, 6), rounds: int = 3) -> ArrayRecord | None:
    """Rounds under one seed."""
    random.seed(42)
    np.random.seed(42)
    return run_rounds(
        strategy, FakeGrid(nodes), model(), rounds=rounds, round_timeout_s=60.0,
        wait_timeout_s=None, min_nodes=5, min_evaluate_nodes=1, max_failed_rounds=3,
    ).arrays  # fmt: skip


def guarded(strategy: Any, reasons: list[str]) -> GuardStrategy:
    """As the server wraps it."""
    return GuardStrategy(strategy, failed=lambda *_: None, round_failed=reasons.append)


def test_model_and_epsilon_are_flowers() -> None:
    """With equal weights from the clients: the same bytes, and the same sum after three rounds."""

    def equal(strategy: Any) -> ArrayRecord | None:
        def answer(message: Message) -> Any:
            if message.metadata.message_type != "train":
                return evaluated(message)
            return update(trained(message).array_records["arrays"])

        grid = FakeGrid(answer=answer)
        random.seed(42)
        np.random.seed(42)
        return run_rounds(
            strategy, grid, model(), rounds=3, round_timeout_s=60.0, wait_timeout_s=None,
            min_nodes=5, min_evaluate_nodes=1, max_failed_rounds=3,
        ).arrays  # fmt: skip

    told: list[tuple[float | None, NoiseRecord | None]] = []
    accountant = flowers()
    theirs = DifferentialPrivacyServerSideFixedClipping(
        FedAvg(), 1.0, 2.0, 5, accountant=accountant
    )
    ours = PrivateStrategy(FedAvg(), accounted(), told=lambda *a: told.append(a))
    assert bytes_of(equal(ours)) == bytes_of(equal(theirs))
    spent = [epsilon or 0.0 for epsilon, _ in told]
    assert spent == sorted(spent)
    assert spent[-1] == accountant.get_privacy_spent().epsilon == pytest.approx(9.01, abs=0.005)


def test_an_exact_cohort_is_drawn_whatever_is_connected() -> None:
    """Nine clients, five a round: their number is what the noise is made for."""
    config = ServerConfig(privacy=accounted())
    sent: list[int] = []

    def answer(message: Message) -> Any:
        sent.append(message.metadata.dst_node_id)
        return trained(message)

    inner = config.strategy.build(config.cohort)
    grid = FakeGrid(range(1, 10), answer)
    for number in (1, 2, 3):
        config_record = ask([1], model())[0].content.config_records["config"]
        messages = list(inner.configure_train(number, model(), config_record, grid))
        assert len(messages) == 5
    assert config.cohort.needed_to_train == 5
    assert ServerConfig().cohort == ServerConfig().clients


def test_a_failed_client_voids_the_round_and_spends_nothing() -> None:
    """Four of five replies: no release, and the epsilon of the rounds before stands."""
    told: list[Any] = []
    strategy = PrivateStrategy(FedAvg(), accounted(), told=lambda *a: told.append(a))
    for failing in (0, 1, 0):
        messages = ask(range(1, 6), model())
        config_record = messages[0].content.config_records["config"]
        strategy.configure_train(1, model(), config_record, FakeGrid())
        replies = [Message(trained(m), reply_to=m) for m in messages[failing:]]
        replies += [Message(Error(1, "gone"), reply_to=m) for m in messages[:failing]]
        if failing:
            with pytest.raises(NotReleased, match=r"^too_few_replies_for_privacy$"):
                strategy.aggregate_train(1, replies)
        else:
            strategy.aggregate_train(1, replies)
    (one, noise), (same, none), (two, _) = told
    assert 0 < one == same < two
    assert noise == NoiseRecord(noise_stdv=0.4)
    assert none is None


def test_a_seventh_reply_is_not_covered_either() -> None:
    """Whoever drew more clients than the accountant was told gets no model."""
    reasons: list[str] = []
    assert bytes_of(
        play(guarded(PrivateStrategy(FedAvg(), accounted()), reasons), range(1, 8))
    ) == (bytes_of(model()))
    assert set(reasons) == {"too_few_replies_for_privacy"}


def test_whole_numbers_stay_as_they_were_sent() -> None:
    """No noise protects a counter, so under a stated epsilon no client's counter goes out."""
    sent = model(w=np.zeros(3, np.float32), count=np.array(7))
    strategy = guarded(PrivateStrategy(FedAvg(), accounted()), [])
    messages = ask(range(1, 6), sent)
    config_record = messages[0].content.config_records["config"]
    strategy.configure_train(1, sent, config_record, FakeGrid())
    counted = model(w=np.ones(3, np.float32), count=np.array(1000))
    replies = [Message(update(counted), reply_to=m) for m in messages]
    arrays, _ = strategy.aggregate_train(1, replies)
    found = values_of(arrays)
    assert found["count"] == 7
    assert found["w"] != [0, 0, 0]


def test_an_account_goes_on_where_it_was() -> None:
    """Its state is JSON; two rounds, a new object and one more round are three rounds."""
    whole, first = PrivateStrategy(FedAvg(), accounted()), PrivateStrategy(FedAvg(), accounted())
    play(whole, rounds=3)
    play(first, rounds=2)
    second = PrivateStrategy(FedAvg(), accounted())
    second.load_state(json.loads(json.dumps(first.state())))
    play(second, rounds=1)
    assert second.account is not None
    assert whole.account is not None
    assert second.account.epsilon == whole.account.epsilon
    for other in (
        accounted(accounting=None),
        accounted(accounting={"delta": 0.1, "population": 9}),
    ):
        with pytest.raises(ValueError, match=r"(?i)account"):
            PrivateStrategy(FedAvg(), other).load_state(first.state())
    with pytest.raises(ValueError, match="accountant"):
        second.load_state({})
    assert PrivateStrategy(FedAvg(), accounted(accounting=None)).state() == {}


@pytest.mark.parametrize(("multiplier", "epsilon", "large"), [(1.0, 9.01, False), (0.1, 231, True)])
def test_a_large_epsilon_is_called_what_it_is(
    multiplier: float, epsilon: float, large: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Said before the first round, from what all rounds will have spent."""
    account = Account(ACCOUNTING, multiplier, 5)
    with caplog.at_level(logging.INFO, "fedserver"):
        account.announce(3)
    first, *rest = [record.getMessage() for record in caplog.records]
    assert first == f"privacy: 3 rounds come to epsilon {epsilon:.4g} at delta 1e-05"
    assert account.planned(3) == pytest.approx(epsilon, rel=1e-2)
    assert [message.split(" is ")[1][:45] for message in rest] == (
        ["formally private and practically not: what th"] if large else []
    )
    assert account.epsilon == 0.0


def test_no_noise_multiplier_makes_epsilon_infinite() -> None:
    """The smallest one that a configuration may have, over very many rounds."""
    assert np.isfinite(Account(ACCOUNTING, 1e-5, 2).planned(100_000))


def test_a_record_of_arrays_is_left_alone() -> None:
    """The replies' own arrays are replaced, not written into: the hook may still hold them."""
    strategy = PrivateStrategy(FedAvg(), accounted(num_sampled_clients=1))
    (message,) = ask([1], model())
    strategy.configure_train(1, model(), message.content.config_records["config"], FakeGrid())
    far = ArrayRecord({name: Array(array.numpy() + 100) for name, array in model().items()})
    before = bytes_of(far)
    strategy.aggregate_train(1, [Message(update(far), reply_to=message)])
    assert bytes_of(far) == before
