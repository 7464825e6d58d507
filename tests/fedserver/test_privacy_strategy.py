"""The privacy wrapper around strategies, over Flower's messages without sockets."""

from __future__ import annotations

import gc
import logging
import pickle
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    Strategy,
)

from fedserver.guard import UNUSABLE_REPLY, GuardStrategy
from fedserver.loop import LoopResult, run_rounds
from fedserver.options import ClientsConfig
from fedserver.privacy import MECHANISMS, PUBLISHED, NotReleased, PrivacyConfig
from fedserver.privacy.distance import greatest_distance
from fedserver.privacy.strategy import PrivateStrategy
from fedserver.strategies import STRATEGIES, StrategyConfig
from fedserver_hooks.meter import NullMeter, ReplayMeter
from fedserver_hooks.recorder import RoundRecorder
from fedserver_hooks.strategy import EmissionsStrategy
from telemetry.domain import NoiseRecord
from telemetry.store.memory import InMemoryStore
from telemetry.testing import make_run
from tests.fedserver.fakes import (
    NODES,
    FakeGrid,
    ask,
    bytes_of,
    default_answer,
    evaluated,
    model,
    trained,
    update,
    values_of,
)

BY_NAME = {config.model_fields["mechanism"].default: config for config in MECHANISMS}
Told = list[tuple[float | None, NoiseRecord | None]]


@pytest.fixture(autouse=True, scope="module")
def few_objects() -> Iterator[None]:
    """Some strategies collect garbage for each reply: let them not look at what others imported."""
    gc.freeze()
    yield
    gc.unfreeze()


def options(mechanism: str = "central-dp", **values: Any) -> PrivacyConfig:
    """A mechanism with ordinary options; ``values`` replace some."""
    given = {"noise_multiplier": 0.5, "clipping_norm": 2.0, "num_sampled_clients": len(NODES)}
    return BY_NAME[mechanism](**{**given, **values})


def play(
    strategy: Strategy,
    grid: FakeGrid | None = None,
    arrays: ArrayRecord | None = None,
    seed: int = 42,
) -> LoopResult:
    """Three rounds under one seed."""
    random.seed(seed)
    np.random.seed(seed)
    return run_rounds(
        strategy,
        grid or FakeGrid(),
        arrays or model(),
        rounds=3,
        round_timeout_s=60.0,
        wait_timeout_s=None,
        min_nodes=2,
        min_evaluate_nodes=2,
        max_failed_rounds=3,
    )


def guarded(strategy: Strategy, reasons: list[str] | None = None, **needs: Any) -> Strategy:
    """As the server wraps it."""
    told = [] if reasons is None else reasons
    return GuardStrategy(strategy, failed=lambda *_: None, round_failed=told.append, **needs)


def one_round(strategy: Strategy, answers: dict[int, RecordDict | None]) -> ArrayRecord | None:
    """Aggregate these answers to `model`; None is an error."""
    messages = ask(answers, model())
    # What is asked of the nodes does not matter here.
    strategy.configure_train(1, model(), messages[0].content.config_records["config"], FakeGrid())
    replies = []
    for message in messages:
        answer = answers[message.metadata.dst_node_id]
        failed = Error(UNUSABLE_REPLY, "told to fail")
        replies.append(Message(failed if answer is None else answer, reply_to=message))
    return strategy.aggregate_train(1, replies)[0]


def step(by: float, examples: int = 10) -> RecordDict:
    """An update that adds ``by`` to every number of `model`."""
    layers = {name: array.numpy() + np.float32(by) for name, array in model().items()}
    return update(model(**layers), examples=examples)


# --- beside Flower's -----------------------------------------------------------------------------


@pytest.mark.parametrize("clipping_norm", [0.5, 5.0, 500.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("inner", [FedAvg, FedAdam, FedAvgM, FedMedian], ids=lambda s: s.__name__)
def test_central_dp_is_flowers_bit_for_bit(inner: Any, seed: int, clipping_norm: float) -> None:
    """Three rounds over real messages, updates longer and shorter than the norm."""
    ours = PrivateStrategy(inner(), options(clipping_norm=clipping_norm))
    theirs = DifferentialPrivacyServerSideFixedClipping(inner(), 0.5, clipping_norm, len(NODES))
    found = play(ours, seed=seed).arrays
    assert bytes_of(found) == bytes_of(play(theirs, seed=seed).arrays)
    assert bytes_of(found) != bytes_of(play(inner(), seed=seed).arrays)


def test_the_noise_of_each_round_is_that_of_the_mechanism() -> None:
    """Over a model of zeros and replies of zeros the model is the noise: z · S / m wide."""
    told: Told = []
    strategy = PrivateStrategy(
        FedAvg(), options(noise_multiplier=3.0), told=lambda *a: told.append(a)
    )
    zeros = model(w=np.zeros((400, 500), np.float32))
    grid = FakeGrid(answer=lambda m: update(m.content.array_records["arrays"]))
    random.seed(1)
    np.random.seed(1)
    messages = list(strategy.configure_train(1, zeros, _config(), grid))
    arrays, _ = strategy.aggregate_train(1, grid.send_and_receive(messages))
    assert arrays is not None
    noise = arrays["w"].numpy()
    assert noise.dtype == np.float32
    # 200,000 draws: 5 standard errors of a standard deviation are 0.8 %.
    assert noise.std() == pytest.approx(3.0 * 2.0 / 5, rel=0.008)
    assert told == [(None, NoiseRecord(noise_stdv=3.0 * 2.0 / 5))]


def _config() -> Any:
    return ask([1], model())[0].content.config_records["config"]


def test_metric_privacy_divides_the_noise_by_the_distance() -> None:
    """The distance is of the models as received, before clipping: the mean over layers."""
    told: Told = []
    private = options("metric-privacy", num_sampled_clients=3, clipping_norm=0.01)
    strategy = PrivateStrategy(FedAvg(), private, told=lambda *a: told.append(a))
    np.random.seed(3)
    arrays = one_round(strategy, {1: step(0), 2: step(1), 3: step(4)})
    distance = 4 * (12**0.5 + 3**0.5) / 2
    ((epsilon, noise),) = told
    assert epsilon is None
    assert noise is not None
    assert noise.distance == pytest.approx(distance, rel=1e-6)
    assert noise.noise_stdv == pytest.approx(0.5 / distance * 0.01 / 3, rel=1e-6)
    # The model: the mean of the clipped steps, and noise that is far smaller.
    mean = 0.01 / 15**0.5 * 2 / 3
    for name, layer in values_of(arrays).items():
        np.testing.assert_allclose(layer, model()[name].numpy() + mean, atol=10 * noise.noise_stdv)


def test_metric_privacy_is_central_dp_with_the_multiplier_over_the_distance() -> None:
    """The two share clipping, aggregation and noise, and every seed."""

    def released(private: PrivacyConfig) -> dict[str, Any]:
        answers: dict[int, RecordDict | None] = {node: step(node) for node in NODES}
        np.random.seed(9)
        return values_of(one_round(PrivateStrategy(FedAvg(), private), answers))

    models = [[layer.numpy() for layer in _arrays_of(step(node)).values()] for node in NODES]
    multiplier = 0.5 / greatest_distance(models)
    metric = released(options("metric-privacy"))
    central = released(options(noise_multiplier=multiplier))
    for name in metric:
        np.testing.assert_allclose(metric[name], central[name], rtol=1e-6)


def _arrays_of(content: RecordDict) -> ArrayRecord:
    return content.array_records["arrays"]


# --- nothing is released -------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", BY_NAME)
def test_too_few_usable_replies_release_nothing(mechanism: str) -> None:
    """The inner strategy is not even asked, no random number is drawn, and the reason has a name."""
    told: Told = []
    strategy = PrivateStrategy(
        FedAvg(), options(mechanism, num_sampled_clients=3), told=lambda *a: told.append(a)
    )
    before = pickle.dumps(np.random.get_state())
    with pytest.raises(NotReleased, match=r"^too_few_replies_for_privacy$"):
        one_round(strategy, {1: step(0), 2: step(1), 3: None, 4: None})
    assert told == [(None, None)]
    assert pickle.dumps(np.random.get_state()) == before
    assert one_round(strategy, {1: step(0), 2: step(1), 3: step(2), 4: None}) is not None


@pytest.mark.parametrize("mechanism", BY_NAME)
def test_a_round_without_release_keeps_the_model_and_says_why(mechanism: str) -> None:
    """Through guard and loop: two of three clients send NaN in round 2 only."""

    def answer(message: Message) -> RecordDict:
        content = default_answer(message)
        number = message.content.config_records["config"]["server-round"]
        train = message.metadata.message_type == "train"
        if train and number == 2 and message.metadata.dst_node_id > 1:
            return update(model(w=np.full((4, 3), np.nan, np.float32), b=np.ones(3)))
        return content

    reasons: list[str] = []
    private = PrivateStrategy(FedAvg(), options(mechanism, num_sampled_clients=3))
    after: list[Any] = []
    run_rounds(
        guarded(private, reasons), FakeGrid((1, 2, 3), answer), model(), rounds=3, round_timeout_s=60.0,
        wait_timeout_s=None, min_nodes=3, min_evaluate_nodes=1, max_failed_rounds=3,
        on_round_end=lambda _, arrays: after.append(bytes_of(arrays)),
    )  # fmt: skip
    assert reasons == ["too_few_replies_for_privacy"]
    assert after[0] == after[1] != after[2]


@pytest.mark.parametrize(
    "by", [(1.0, 1.0, 1.0), (1e300, -1e300, 0.0)], ids=["all alike", "beyond all numbers"]
)
def test_without_a_distance_metric_privacy_releases_nothing(by: tuple[float, ...]) -> None:
    """Alike models would need infinite noise; too far ones would get none."""
    layers = {name: array.numpy().astype(np.float64) for name, array in model().items()}
    answers: dict[int, RecordDict | None] = {
        node: update(model(**{name: layer + value for name, layer in layers.items()}))
        for node, value in enumerate(by, 1)
    }
    strategy = PrivateStrategy(FedAvg(), options("metric-privacy", num_sampled_clients=3))
    with pytest.raises(NotReleased, match=r"^undefined_distance_for_privacy$"):
        one_round(strategy, answers)


# --- layers, weights -----------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", BY_NAME)
def test_whole_numbers_are_neither_clipped_nor_noised(
    mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A counter is averaged as it is, its size changes no distance and no clipping, and a log says so."""
    sent = model(w=np.zeros(3, np.float32), count=np.array([10, 20]), flag=np.array(True))

    def answer(count: int, by: float) -> RecordDict:
        layers = {"w": np.full(3, by, np.float32), "count": np.array([count, count]), "flag": True}
        return update(model(**layers))

    told: Told = []
    strategy = PrivateStrategy(
        FedAvg(),
        options(mechanism, num_sampled_clients=2, clipping_norm=100.0),
        told=lambda *a: told.append(a),
    )
    np.random.seed(1)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            messages = ask((1, 2), sent)
            strategy.configure_train(1, sent, _config(), FakeGrid())
            replies = [
                Message(answer(count, by), reply_to=message)
                for message, (count, by) in zip(messages, ((10**6, 1.0), (30, 2.0)), strict=True)
            ]
            arrays, _ = strategy.aggregate_train(1, replies)
    assert arrays is not None
    assert arrays["count"].numpy().tolist() == [500_015, 500_015]
    assert arrays["flag"].numpy() == 1
    assert arrays["w"].numpy().dtype == np.float32
    assert not np.array_equal(arrays["w"].numpy(), np.full(3, 1.5, np.float32))
    assert [record.getMessage() for record in caplog.records].count(
        "the model has layers of whole numbers, which privacy cannot protect: they are aggregated as "
        "they are"
    ) == 1
    noise = told[0][1]
    assert noise is not None
    assert noise.distance is None or noise.distance == pytest.approx(3**0.5)


def test_equal_weights_count_every_client_once() -> None:
    """The update of a client with a million examples moves the model no further than another's."""
    answers: dict[int, RecordDict | None] = {
        1: step(1, examples=1_000_000),
        2: step(-1, examples=1),
    }
    tiny: dict[str, Any] = {
        "noise_multiplier": 1e-5,
        "clipping_norm": 10.0,
        "num_sampled_clients": 2,
    }
    by_examples = one_round(PrivateStrategy(FedAvg(), options(**tiny)), dict(answers))
    answers = {1: step(1, examples=1_000_000), 2: step(-1, examples=1)}
    equal = one_round(PrivateStrategy(FedAvg(), options(**tiny, weights="equal")), answers)
    np.testing.assert_allclose(values_of(by_examples)["b"], 2.0, atol=1e-2)
    np.testing.assert_allclose(values_of(equal)["b"], 1.0, atol=1e-2)


def test_what_a_strategy_keeps_is_not_noised() -> None:
    """FedAvgM hands out the very record that it goes on with."""
    inner = FedAvgM(server_momentum=0.5)
    one_round(PrivateStrategy(inner, options(num_sampled_clients=2)), {1: step(1), 2: step(1)})
    assert inner.current_arrays is not None
    by = 2.0 / 15**0.5  # clipped
    kept = inner.current_arrays["b"].numpy()
    np.testing.assert_allclose(kept, 1 + by, rtol=1e-6)


def test_the_distance_is_published_only_where_it_was_asked_for() -> None:
    """As training metrics; otherwise nothing that leaves the wrapper tells it."""
    for publish in (False, True):
        private = options("metric-privacy", num_sampled_clients=2, publish_distance=publish)
        strategy = PrivateStrategy(FedAvg(), private)
        messages = ask((1, 2), model())
        strategy.configure_train(1, model(), _config(), FakeGrid())
        replies = [Message(step(by), reply_to=m) for m, by in zip(messages, (0, 1), strict=True)]
        _, metrics = strategy.aggregate_train(1, replies)
        assert set(PUBLISHED) <= set(metrics or ()) if publish else not set(metrics or ())


# --- the registries ------------------------------------------------------------------------------


def _strategy(config: type[StrategyConfig]) -> tuple[Strategy, Any]:
    chosen = config(**dict(getattr(config, "example", {})))
    few = len(NODES)
    clients = ClientsConfig(min_fit=few, min_evaluate=few, min_available=few)
    return chosen.build(clients), chosen.needs_metrics


def _losing(message: Message) -> RecordDict:
    """As `default_answer`, with the loss that some strategies ask for."""
    if message.metadata.message_type != "train":
        return evaluated(message)
    return trained(message, train_loss=0.5)


def _recorded(strategy: Strategy, *, tracked: bool) -> EmissionsStrategy:
    store = InMemoryStore()
    run = make_run(tracked=tracked, rounds_planned=3)
    meter = ReplayMeter(100.0) if tracked else NullMeter()
    recorder = RoundRecorder(run, store, meter)
    recorder.start()
    return EmissionsStrategy(strategy, recorder)


@pytest.mark.parametrize("mechanism", [None, *BY_NAME])
@pytest.mark.parametrize("config", STRATEGIES, ids=lambda c: c.model_fields["name"].default)
def test_tracking_changes_no_bit_of_the_model(
    config: type[StrategyConfig], mechanism: str | None
) -> None:
    """Every strategy × every mechanism: on, off and without the hook, and it draws no numbers."""

    def built() -> Strategy:
        inner, needs = _strategy(config)
        if mechanism is not None:
            inner = PrivateStrategy(inner, options(mechanism))
        return guarded(inner, needs_metrics=needs)

    def ended(strategy: Strategy) -> tuple[Any, ...]:
        result = play(strategy, FakeGrid(answer=_losing))
        assert result.ended == "completed", result.reason
        if isinstance(strategy, EmissionsStrategy):
            strategy.recorder.finish("completed")
        states = random.getstate(), pickle.dumps(np.random.get_state())
        return bytes_of(result.arrays), states

    bare = ended(built())
    assert ended(_recorded(built(), tracked=True)) == bare
    assert ended(_recorded(built(), tracked=False)) == bare
