"""Every strategy of the registry over real messages: one that is added is tested the same day."""

from __future__ import annotations

import gc
import io
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, Strategy

from fedserver.guard import GuardStrategy
from fedserver.loop import LoopResult, run_rounds
from fedserver.options import ClientsConfig
from fedserver.strategies import STRATEGIES, FedAvgConfig, StrategyConfig, names
from fedserver.strategies.describe import example, markdown, options_of, text
from fedserver.strategies.fedopt import FedOptConfig
from fedserver.strategies.state import State, StateError, load_state_of, state_of
from fedserver_hooks.strategy import EmissionsStrategy
from telemetry.store.memory import InMemoryStore
from tests.fedserver.clients import ROOT, Script
from tests.fedserver.fakes import FakeGrid, ask, bytes_of, evaluated, model, trained, values_of
from tests.fedserver.servers import train
from tests.fedserver.test_guard import Guarded, _replies
from tests.fedserver_hooks.fakes import recorder

KINDS = dict(zip(names(), STRATEGIES, strict=True))
OPTIONS: dict[str, dict[str, Any]] = {
    # Where the defaults leave out what a strategy is about.
    "FedOpt": {"eta": 0.5, "beta_1": 0.9},
    "FedAvgM": {"server_learning_rate": 0.5, "server_momentum": 0.9},
    "FedTrimmedAvg": {"beta": 0.4},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 3},
    "Bulyan": {"num_malicious_nodes": 1},
}

Wrap = Callable[[Strategy, int], Strategy]
PRIVACY: dict[str, Wrap] = {
    # What stands between strategy and guard, for a fleet of so many clients.
    "no privacy": lambda strategy, _: strategy,
    "Flower's central DP": lambda strategy, fleet: DifferentialPrivacyServerSideFixedClipping(
        strategy, noise_multiplier=0.1, clipping_norm=5.0, num_sampled_clients=fleet
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _small_heap() -> Iterator[None]:
    """Flower's Bulyan and QFedAvg collect garbage after each reply: leave them little to look at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def configured(config: type[StrategyConfig], defaults: bool = False) -> StrategyConfig:
    """The strategy with its defaults, or with options that matter."""
    name = config.model_fields["name"].default
    more = {} if defaults else OPTIONS.get(name, {})
    return config(**{**config.example, **more})


CASES = [
    pytest.param(configured(config, defaults), id=f"{name}{', defaults' if defaults else ''}")
    for name, config in zip(names(), STRATEGIES, strict=True)
    for defaults in ((True, False) if name in OPTIONS else (True,))
]


def fleet_of(strategy: StrategyConfig) -> int:
    """As many clients as it needs, and never fewer than three."""
    return max(3, strategy.smallest_fleet)


def built(strategy: StrategyConfig) -> Strategy:
    """The strategy for its fleet."""
    fleet = fleet_of(strategy)
    return strategy.build(ClientsConfig(min_fit=fleet, min_evaluate=1, min_available=fleet))


def answers(reporting: bool) -> Callable[[Message], RecordDict]:
    """Clients with a loss and an accuracy; ``reporting`` ones tell their emissions, some badly."""

    def answer(message: Message) -> RecordDict:
        node = message.metadata.dst_node_id
        train = message.metadata.message_type == "train"
        content = trained(message, train_loss=1 / node) if train else evaluated(message)
        if reporting and node != 1:
            kg = 1e-6 if node != 2 else -1.0
            content["emissions"] = ConfigRecord({"schema": 1, "emissions_kg": kg})
        return content

    return answer


def play(
    strategy: Strategy,
    fleet: int,
    arrays: ArrayRecord,
    *,
    rounds: int = 3,
    first_round: int = 1,
    reporting: bool = False,
) -> LoopResult:
    """Rounds over that many clients, all of which train."""
    return run_rounds(
        strategy,
        FakeGrid(range(1, fleet + 1), answers(reporting)),
        arrays,
        rounds=rounds,
        first_round=first_round,
        round_timeout_s=60.0,
        wait_timeout_s=None,
        min_nodes=fleet,
        min_evaluate_nodes=1,
        max_failed_rounds=1,
    )


def guarded(config: StrategyConfig, inner: Strategy, wrapped: Strategy) -> Strategy:
    """As the server wraps it."""
    return GuardStrategy(
        wrapped,
        failed=lambda *_: None,
        round_failed=lambda _: None,
        needs_metrics=config.needs_metrics,
        remembers=inner,
    )


def seeded() -> None:
    """Sampling and noise from here on are the same each time."""
    random.seed(42)
    np.random.seed(42)


@pytest.mark.parametrize("privacy", PRIVACY)
@pytest.mark.parametrize("config", CASES)
def test_tracking_changes_no_bit(config: StrategyConfig, privacy: str) -> None:
    """Tracked, not tracked, and without the hook: the same bytes, types and random numbers."""
    fleet = fleet_of(config)
    results, draws = [], []
    for tracked in (True, False, None):
        seeded()
        inner = built(config)
        strategy = guarded(config, inner, PRIVACY[privacy](inner, fleet))
        store = InMemoryStore()
        if tracked is not None:
            book = recorder(store, tracked=tracked)
            book.start()
            strategy = EmissionsStrategy(strategy, book)
        result = play(strategy, fleet, model(), reporting=tracked is not None)
        assert (result.ended, result.rounds_played) == ("completed", 3), result.reason
        results.append(bytes_of(result.arrays))
        draws.append((random.random(), np.random.random()))
        if tracked is not None:
            book.finish("completed")
            done = store.round(book.run.run_id, 3)
            assert len(done.trained) == fleet
            assert bool(done.clients_emissions_kg) == tracked
    assert results[0] == results[1] == results[2] != bytes_of(model())
    assert len(set(draws)) == 1


@pytest.mark.parametrize("config", CASES)
def test_types_and_names_are_those_that_were_sent(config: StrategyConfig) -> None:
    """Whatever a strategy computes in, the model keeps its layers' names, order and types."""
    arrays = model(z=np.ones((2, 3), np.float32), a=np.ones(4), half=np.ones(2, np.float16))
    inner = built(config)
    result = play(guarded(config, inner, inner), fleet_of(config), arrays)
    assert result.arrays is not None
    assert [(n, a.numpy().dtype, a.numpy().shape) for n, a in result.arrays.items()] == [
        (n, a.numpy().dtype, a.numpy().shape) for n, a in arrays.items()
    ]


@pytest.mark.parametrize("config", CASES)
def test_integer_layers_stay_integers(config: StrategyConfig) -> None:
    """A counter stays one, and the weights beside it train; only QFedAvg says that it cannot."""
    arrays = model(w=np.ones(3, np.float32), count=np.array([100, 7], np.int64))
    inner = built(config)
    result = play(guarded(config, inner, inner), fleet_of(config), arrays, rounds=1)
    if config.name == "QFedAvg":
        assert result.ended == "failed"
        return
    assert result.ended == "completed"
    assert result.arrays is not None
    assert result.arrays["count"].numpy().dtype == np.int64
    assert values_of(result.arrays)["w"] != values_of(arrays)["w"]


@pytest.mark.parametrize("config", [configured(config) for config in STRATEGIES], ids=names())
def test_each_trains_over_sockets(config: StrategyConfig, tmp_path: Path) -> None:
    """From options as text to a trained model, with ordinary clients and their reports."""
    scripts = [
        Script(
            add=0.5 + number / 10,
            examples=10 + number,
            metrics={"train_loss": 1.0 + number, "emissions": 1e-6},
            echo=("proximal_mu", "proximal-mu"),
        )
        for number in range(fleet_of(config))
    ]
    options: dict[str, Any] = {f"strategy__{k}": str(v) for k, v in config.model_dump().items()}
    done = train(tmp_path, scripts, **options)
    assert done.outcome.exit_code == 0
    assert [row.status for row in done.rounds] == ["completed"] * 3
    assert done.run.info.strategy == config.name
    for row in done.rounds[1:]:
        assert row.reported == len(scripts)
        mu = getattr(config, "proximal_mu", None)
        echoed = (
            row.train_metrics.get("proximal_mu-echo"),
            row.train_metrics.get("proximal-mu-echo"),
        )
        assert echoed == (mu, mu)


# --- states -------------------------------------------------------------------------------------


def through_a_file(state: State) -> dict[str, Any]:
    """The state as a file without pickles gives it back."""
    file = io.BytesIO()
    np.savez(file, **{name: np.asarray(value) for name, value in state.items()})  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file, allow_pickle=False) as read:
        return {name: read[name] for name in read.files}


@pytest.mark.parametrize("config", CASES)
def test_a_state_continues_bit_for_bit(config: StrategyConfig) -> None:
    """Three rounds, a new object with the state from a file, three more: as six in one go."""
    fleet = fleet_of(config)
    arrays = model(w=np.ones((2, 3), np.float32), scalar=np.asarray(0.5, np.float32))
    seeded()  # the order of the clients, and so that of the sums, is drawn each round
    inner = built(config)
    whole = play(guarded(config, inner, inner), fleet, arrays, rounds=6)

    seeded()
    first = built(config)
    half = play(guarded(config, first, first), fleet, arrays)
    assert half.arrays is not None
    state = through_a_file(state_of(first))
    second = built(config)
    load_state_of(second, state)
    rest = play(guarded(config, second, second), fleet, half.arrays, rounds=6, first_round=4)

    assert bytes_of(rest.arrays) == bytes_of(whole.arrays) != bytes_of(half.arrays)
    assert through_a_file(state_of(second)).keys() == through_a_file(state_of(inner)).keys()


REMEMBERING = {"FedAdam", "FedYogi", "FedAdagrad", "FedOpt", "FedAvgM"}


@pytest.mark.parametrize("config", [configured(config) for config in STRATEGIES], ids=names())
def test_who_remembers_something_needs_its_state(config: StrategyConfig) -> None:
    """Without the state the rest of a training is another one, for these and for no others."""
    fleet = fleet_of(config)
    seeded()
    inner = built(config)
    whole = play(guarded(config, inner, inner), fleet, model(), rounds=6)
    seeded()
    half = play(guarded(config, first := built(config), first), fleet, model())
    assert half.arrays is not None
    without = built(config)
    rest = play(guarded(config, without, without), fleet, half.arrays, rounds=6, first_round=4)
    assert (bytes_of(rest.arrays) != bytes_of(whole.arrays)) == (config.name in REMEMBERING)
    assert bool(state_of(first)) == (config.name in REMEMBERING)


@pytest.mark.parametrize("config", CASES)
@pytest.mark.parametrize(
    "state",
    [{"m_t/w": np.ones(3)}, {"other/w": np.ones(3)}, {"momentum_vector/w": np.ones(3)}, {"m_t": 1}],
    ids=lambda state: next(iter(state)),
)
def test_a_foreign_state_is_refused(config: StrategyConfig, state: Mapping[str, Any]) -> None:
    """Half a state, or another strategy's, is an error and never a silent fresh start."""
    with pytest.raises(StateError):
        load_state_of(built(config), state)


@pytest.mark.parametrize("config", CASES)
def test_a_new_object_has_no_state_and_takes_that(config: StrategyConfig) -> None:
    """The state before the first round is empty."""
    strategy = built(config)
    assert state_of(strategy) == {}
    load_state_of(strategy, {})


@pytest.mark.parametrize("name", sorted(REMEMBERING))
def test_a_refused_model_leaves_no_trace_in_the_state(name: str) -> None:
    """Steps that overflow the model's type fail their round, and are not carried into the next."""
    config = configured(KINDS[name])
    inner: Any = built(config)
    book = Guarded(inner)

    def round_of(number: int, arrays: ArrayRecord) -> ArrayRecord | None:
        return book.train(trained, arrays, number)[0]

    after_one = round_of(1, model(w=np.ones(3, np.float16)))
    assert after_one is not None
    before = through_a_file(state_of(inner))
    rate = "server_learning_rate" if name == "FedAvgM" else "eta"
    setattr(inner, rate, 1e30)
    with np.errstate(all="ignore"):
        refused = round_of(2, after_one)
    after = through_a_file(state_of(inner))

    assert refused is None
    assert "infinity" in book.round_failures[0]
    assert before.keys() == after.keys()
    assert all(before[key].tobytes() == after[key].tobytes() for key in before)


# --- fleets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Krum", "MultiKrum", "Bulyan"])
def test_a_round_with_too_few_usable_updates_fails_with_the_reason(name: str) -> None:
    """Started with enough, left with one too few: no model, and the number that is needed."""
    config = configured(KINDS[name])
    fleet = config.smallest_fleet
    book = Guarded(built(config))
    sent = book.guard.configure_train(1, model(), ConfigRecord(), FakeGrid(range(1, fleet + 1)))

    def answer(message: Message) -> RecordDict:
        node = message.metadata.dst_node_id
        return trained(message) if node > 1 else RecordDict()

    arrays, _ = book.guard.aggregate_train(1, _replies(sent, answer))
    assert arrays is None
    assert book.round_failures == [
        f"aggregation failed: TooFewUpdates: {fleet} updates are needed where 1 clients may be "
        f"malicious ({fleet - 1} of {fleet} updates were usable)"
    ]


@pytest.mark.parametrize(
    ("config", "fleet"),
    [
        ({"name": "Krum"}, 3),
        ({"name": "Krum", "num_malicious_nodes": 2}, 7),
        ({"name": "MultiKrum", "num_malicious_nodes": 1, "num_nodes_to_select": 6}, 7),
        ({"name": "Bulyan", "num_malicious_nodes": 2}, 11),
        ({"name": "FedAvg"}, 1),
    ],
)
def test_the_smallest_fleet_follows_from_the_options(config: Mapping[str, Any], fleet: int) -> None:
    """2f + 3, 4f + 3, or one."""
    kind = KINDS[config["name"]]
    assert kind(**config).smallest_fleet == fleet


@pytest.mark.parametrize("name", ["Krum", "MultiKrum", "Bulyan", "FedMedian", "FedTrimmedAvg"])
def test_robust_strategies_stand_one_liar(name: str) -> None:
    """One model far off does not carry the aggregate away, as it carries the mean."""
    config = configured(KINDS[name])
    nodes = range(1, max(5, config.smallest_fleet) + 1)
    sent = ask(nodes, model())

    def answer(message: Message) -> RecordDict:
        content = trained(message)
        if message.metadata.dst_node_id == 2:
            content["arrays"] = model(
                w=np.full((4, 3), 1e6, np.float32), b=np.full(3, 1e6, np.float32)
            )
        return content

    def largest(strategy: Strategy) -> float:
        arrays, _ = strategy.aggregate_train(1, _replies(sent, answer))
        assert arrays is not None
        return max(float(np.abs(array.numpy()).max()) for array in arrays.values())

    assert largest(built(config)) < 20
    assert largest(FedAvg()) > 1e4


# --- FedOpt -------------------------------------------------------------------------------------


def test_fedopt_with_its_defaults_is_fedavg() -> None:
    """η = 1 and β₁ = 0: the same bytes, not only nearly."""
    seeded()
    fedopt = play(built(FedOptConfig()), 3, model())
    seeded()
    fedavg = play(built(FedAvgConfig()), 3, model())
    assert bytes_of(fedopt.arrays) == bytes_of(fedavg.arrays)


def test_fedopt_follows_its_formula() -> None:
    """x ← x + η·m with m ← β₁·m + (1 − β₁)·Δ, over three rounds, by hand."""
    strategy = built(FedOptConfig(eta=0.5, beta_1=0.9))
    x, m = np.zeros(2), np.zeros(2)
    for number in (1, 2, 3):
        arrays = model(w=x.astype(np.float64))
        sent = list(strategy.configure_train(number, arrays, ConfigRecord(), FakeGrid([1, 2, 3])))
        new, _ = strategy.aggregate_train(number, _replies(sent, trained))
        mean, _ = FedAvg().aggregate_train(number, _replies(sent, trained))
        assert new is not None
        assert mean is not None
        m = 0.9 * m + 0.1 * (mean["w"].numpy() - x)
        x = x + 0.5 * m
        np.testing.assert_allclose(new["w"].numpy(), x, rtol=1e-12)


# --- what is said of them -----------------------------------------------------------------------


def test_every_strategy_and_option_is_described() -> None:
    """A sentence and a paper each, and words for each option."""
    for config in STRATEGIES:
        assert config.summary.endswith(".")
        assert config.paper.startswith("https://")
        for option in options_of(config):
            assert option.means, (config, option)
            assert option.values, (config, option)


def test_the_list_shows_options_defaults_fleets_and_papers() -> None:
    """What `fedserver strategies` prints, for one strategy with everything."""
    kind = KINDS["Krum"]
    assert list(text((kind,))) == [
        "Krum",
        "  The one client's model that lies nearest to the others.",
        "  num_malicious_nodes  default 0; whole number, 0 or more: clients that may send anything, at "
        "most (f)",
        "  clients in a round, at least: 2 × num_malicious_nodes + 3; 3 with the defaults",
        "  https://arxiv.org/abs/1703.02757",
        "",
    ]


def test_the_documentation_holds_the_registry() -> None:
    """docs/strategies.md ends with what `fedserver strategies --markdown` prints."""
    page = (Path(ROOT) / "docs" / "strategies.md").read_text(encoding="utf-8")
    assert page.endswith(markdown().rstrip() + "\n")


@pytest.mark.parametrize("config", STRATEGIES, ids=names())
def test_an_example_line_is_a_working_configuration(config: type[StrategyConfig]) -> None:
    """What the page shows for a strategy can be pasted."""
    import yaml

    from fedserver.options import ServerConfig

    strategy = ServerConfig.model_validate(yaml.safe_load(example(config))).strategy
    assert type(strategy) is config
