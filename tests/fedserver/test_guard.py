"""A bad reply is one client's failure: never the model's, never the run's."""

from __future__ import annotations

import math
import pickle
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, QFedAvg, Strategy
from hypothesis import example, given
from hypothesis import strategies as st

from fedserver.guard import UNUSABLE_REPLY, GuardStrategy, Heard
from fedserver.replies import MAX_OPTIONAL_METRICS, Weighted, weighted_means
from tests.fedserver.fakes import (
    NODES,
    STRATEGIES,
    FakeGrid,
    ask,
    bytes_of,
    evaluated,
    model,
    trained,
    update,
    values_of,
)


class Guarded:
    """A guard around a strategy, and everything it tells."""

    def __init__(self, strategy: Strategy, **options: Any) -> None:
        self.failures: dict[int, str] = {}
        self.round_failures: list[str] = []
        self.metrics: dict[str, tuple[Mapping[str, float], Mapping[str, int]]] = {}
        self.guard = GuardStrategy(
            strategy,
            failed=self.failures.__setitem__,
            round_failed=self.round_failures.append,
            metrics=self._hear,
            **options,
        )

    def _hear(self, heard: Heard) -> None:
        self.metrics[heard.phase] = (heard.values, heard.senders)

    def train(
        self,
        answer: Callable[[Message], RecordDict | Error],
        arrays: ArrayRecord | None = None,
        number: int = 1,
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """One round with these answers."""
        sent = self.guard.configure_train(
            number, model() if arrays is None else arrays, ConfigRecord(), FakeGrid()
        )
        return self.guard.aggregate_train(number, _replies(sent, answer))

    def evaluate(self, answer: Callable[[Message], RecordDict | Error]) -> MetricRecord | None:
        """One evaluation with these answers."""
        sent = self.guard.configure_evaluate(1, model(), ConfigRecord(), FakeGrid())
        return self.guard.aggregate_evaluate(1, _replies(sent, answer))


def _replies(
    sent: Iterable[Message], answer: Callable[[Message], RecordDict | Error]
) -> list[Message]:
    # By node, as the same answers must be aggregated in the same order to compare bits.
    ordered = sorted(sent, key=lambda message: message.metadata.dst_node_id)
    return [Message(answer(message), reply_to=message) for message in ordered]


def only(node: int, bad: Callable[[Message], RecordDict]) -> Callable[[Message], RecordDict]:
    """One node answers badly, the others train."""
    return lambda message: (
        bad(message) if message.metadata.dst_node_id == node else trained(message)
    )


def changed(**layers: Any) -> Callable[[Message], RecordDict]:
    """An update with some layers replaced (None: left out)."""

    def answer(message: Message) -> RecordDict:
        arrays = trained(message).array_records["arrays"]
        for name, values in layers.items():
            if values is None:
                del arrays[name]
            else:
                arrays[name] = values if isinstance(values, Array) else Array(np.asarray(values))
        return update(arrays)

    return answer


def with_examples(value: Any) -> Callable[[Message], RecordDict]:
    """An update with this number of examples (None: none)."""
    return lambda message: update(trained(message).array_records["arrays"], value)


def without(record: str) -> Callable[[Message], RecordDict]:
    """An update without one of its records."""

    def answer(message: Message) -> RecordDict:
        content = trained(message)
        del content[record]
        return content

    return answer


def two_models(message: Message) -> RecordDict:
    """An update with a second model."""
    content = trained(message)
    content["more"] = model()
    return content


NAN = np.full((4, 3), np.nan, np.float32)
BAD: dict[str, tuple[Callable[[Message], RecordDict], str]] = {
    "shape": (changed(w=np.zeros((3, 4), np.float32)), "'w' has shape (3, 4) instead of (4, 3)"),
    "broadcastable shape": (
        changed(w=np.zeros((1, 3), np.float32)),
        "'w' has shape (1, 3) instead of (4, 3) (it would broadcast)",
    ),
    "NaN": (changed(w=NAN), "layer 'w' holds NaN or infinity"),
    "infinity": (
        changed(b=np.array([1, np.inf, 1], np.float32)),
        "layer 'b' holds NaN or infinity",
    ),
    "infinite once cast": (
        changed(b=np.array([1, 1e300, 1])),
        "'b' holds values too large for float32",
    ),
    "unreadable": (
        changed(w=Array("", (), "numpy.ndarray", b"no array")),
        "layer 'w' cannot be read",
    ),
    "empty bytes": (changed(w=Array("", (), "numpy.ndarray", b"")), "layer 'w' cannot be read"),
    "another encoding": (changed(w=Array("", (), "torch", b"x")), "layer 'w' cannot be read"),
    "text": (changed(b=np.array(["a", "b", "c"])), "layer 'b' holds <U1, not numbers"),
    "complex": (changed(b=np.ones(3, complex)), "layer 'b' holds complex128, not numbers"),
    "too many layers": (changed(extra=np.zeros(1)), "3 layers instead of 2"),
    "too few layers": (changed(b=None), "1 layers instead of 2"),
    "other names": (changed(b=None, bias=np.ones(3)), "other names of layers than were sent: 'b'"),
    "zero examples": (with_examples(0), "num-examples is 0, not a positive integer"),
    "negative examples": (with_examples(-5), "num-examples is -5, not a positive integer"),
    "half an example": (with_examples(0.5), "num-examples is 0.5, not a positive integer"),
    "NaN examples": (with_examples(math.nan), "num-examples is nan, not a positive integer"),
    "a list of examples": (with_examples([1, 2]), "num-examples is [1, 2], not a positive integer"),
    "no examples": (with_examples(None), "no num-examples"),
    "no metrics": (without("metrics"), "1 models and 0 sets of metrics instead of one of each"),
    "no model": (without("arrays"), "0 models and 1 sets of metrics instead of one of each"),
    "two models": (two_models, "2 models and 1 sets of metrics instead of one of each"),
}


@pytest.mark.parametrize("strategy", ["FedAvg", "FedAdam", "FedMedian", "Krum"])
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_update_is_one_clients_failure(strategy: str, bad: str) -> None:
    """The reason names what is wrong; the model is what the other clients alone would have made."""
    answer, reason = BAD[bad]
    with_bad = Guarded(STRATEGIES[strategy]())
    arrays, _ = with_bad.train(only(2, answer))
    without_it = Guarded(STRATEGIES[strategy]())
    expected, _ = without_it.train(
        lambda message: Error(0, "gone") if message.metadata.dst_node_id == 2 else trained(message)
    )

    assert list(with_bad.failures) == [2]
    assert reason in with_bad.failures[2]
    assert with_bad.round_failures == without_it.round_failures == []
    assert bytes_of(arrays) == bytes_of(expected)
    assert all(np.isfinite(array.numpy()).all() for array in arrays.values())  # type: ignore[union-attr]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_good_replies_pass_as_they_are(strategy: str) -> None:
    """With good clients only, guarded and bare strategies make the same model, in the sent types."""
    random.seed(1)
    np.random.seed(1)
    arrays, _ = Guarded(STRATEGIES[strategy]()).train(trained)
    random.seed(1)
    np.random.seed(1)
    bare = STRATEGIES[strategy]()
    sent = bare.configure_train(1, model(), ConfigRecord(), FakeGrid())
    expected, _ = bare.aggregate_train(1, _replies(sent, trained))

    assert arrays is not None
    assert expected is not None
    for name, array in model().items():
        assert arrays[name].numpy().dtype == array.numpy().dtype
        assert (arrays[name].numpy() == expected[name].numpy().astype(array.dtype)).all()


def test_the_strategy_sees_the_reply_of_the_node_that_failed() -> None:
    """The refused reply is an error from that node, and in its place."""
    seen: list[Message] = []

    class Watching(FedAvg):
        def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
            seen.extend(replies)
            return super().aggregate_train(server_round, seen)

    Guarded(Watching()).train(only(2, with_examples(0)))

    assert [reply.metadata.src_node_id for reply in seen] == list(NODES)
    assert [reply.has_error() for reply in seen] == [False, True, False, False, False]
    assert seen[1].error.code == UNUSABLE_REPLY
    assert "not a positive integer" in (seen[1].error.reason or "")


def test_errors_from_the_grid_are_not_told_twice() -> None:
    """Whoever made the error has told of it; the guard passes it on."""
    guarded = Guarded(FedAvg())
    arrays, _ = guarded.train(
        lambda message: Error(5, "gone") if message.metadata.dst_node_id == 1 else trained(message)
    )
    assert arrays is not None
    assert guarded.failures == {}


def test_a_round_without_a_usable_update_fails_with_a_count() -> None:
    """``(None, None)`` and a reason; the previous model stands."""
    guarded = Guarded(FedAvg())
    assert guarded.train(with_examples(0)) == (None, None)
    assert guarded.round_failures == ["nothing was aggregated: 0 of 5 updates were usable"]
    assert len(guarded.failures) == 5


class Failing(FedAvg):
    """A strategy that cannot aggregate: it raises, or returns what it is told to."""

    def __init__(self, returns: ArrayRecord | None = None, *, raises: bool = False) -> None:
        super().__init__()
        self._returns = returns
        self._raises = raises

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As told."""
        if self._raises:
            raise ValueError("told to\nraise")
        return self._returns, None

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord:
        """Always raises."""
        raise ValueError("told to raise")


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        (Failing(raises=True), "aggregation failed: ValueError: told to raise (5 of 5"),
        (Failing(None), "nothing was aggregated: 5 of 5 updates were usable"),
        (Failing(model(w=NAN, b=np.ones(3))), "returned layer w with NaN, infinity"),
        (Failing(model(w=np.full((4, 3), 1e300), b=np.ones(3))), "too large values"),
        (Failing(model(w=np.ones((3, 4)), b=np.ones(3))), "layer w with shape (3, 4)"),
        (Failing(model(w=np.ones((4, 3)))), "returned 1 layers instead of 2"),
        (
            Failing(
                ArrayRecord({"w": Array("", (), "numpy.ndarray", b"x"), "b": Array(np.ones(3))})
            ),
            "aggregation failed: ",
        ),
    ],
    ids=["raises", "nothing", "NaN", "overflow", "shape", "layers", "unreadable"],
)
def test_whatever_a_strategy_does_wrong_is_a_failed_round(strategy: Strategy, reason: str) -> None:
    """No exception and no broken model leaves the guard; the reason does."""
    guarded = Guarded(strategy)
    assert guarded.train(trained) == (None, None)
    (told,) = guarded.round_failures
    assert reason in told
    assert "\n" not in told


def test_a_strategy_that_raises_in_evaluation_fails_no_round() -> None:
    """The means of the clients' metrics are kept, and the round stands."""
    guarded = Guarded(Failing(raises=True))
    assert guarded.evaluate(evaluated) == {"loss": pytest.approx(5 / 15)}
    assert guarded.round_failures == []


# --- names, order and types ----------------------------------------------------------------------


def test_types_are_those_that_were_sent() -> None:
    """Float64 goes back to float32, counters are rounded to whole numbers, 0-d layers stay."""
    sent = model(
        w=np.ones((2, 2), np.float32), steps=np.asarray(3), mask=np.ones(2, bool), s=np.float32(1)
    )

    def answer(message: Message) -> RecordDict:
        node = message.metadata.dst_node_id
        layers = {
            "w": np.full((2, 2), node, np.float64),
            "steps": np.asarray(node),
            "mask": np.array([True, node > 1]),
            "s": np.float32(node),
        }
        return update(model(**layers))

    arrays, _ = Guarded(FedAvg()).train(answer, sent)

    assert arrays is not None
    assert [str(array.numpy().dtype) for array in arrays.values()] == [
        "float32",
        "int64",
        "bool",
        "float32",
    ]
    assert values_of(arrays) == {"w": [[3, 3], [3, 3]], "steps": 3, "mask": [True, True], "s": 3}


def test_rounding_is_to_the_nearest() -> None:
    """A counter's mean of 2.8 is 3, not 2."""
    arrays, _ = Guarded(FedAvg()).train(
        lambda message: update(model(n=np.asarray(2 if message.metadata.dst_node_id == 1 else 3))),
        model(n=np.asarray(0)),
    )
    assert values_of(arrays) == {"n": 3}


def test_order_and_names_are_those_that_were_sent() -> None:
    """A client's other order and a strategy's numbered layers do not reach the model."""
    turned = model(b=np.full(3, 7, np.float32), w=np.zeros((4, 3), np.float32))
    arrays, _ = Guarded(FedAvg()).train(lambda _: update(turned))
    numbered = Failing(ArrayRecord([np.zeros((4, 3), np.float32), np.ones(3, np.float32)]))
    renamed, _ = Guarded(numbered).train(trained)

    assert list(arrays or ()) == list(renamed or ()) == ["w", "b"]
    assert values_of(arrays)["b"] == [7, 7, 7]
    assert values_of(renamed)["b"] == [1, 1, 1]


def test_an_aggregate_that_needs_nothing_is_the_same_object() -> None:
    """FedAvgM keeps what it returns: it is neither copied nor changed."""
    result = model()
    arrays, _ = Guarded(Failing(result)).train(trained)
    assert arrays is result


# --- metrics -------------------------------------------------------------------------------------


def test_optional_metrics_are_averaged_over_those_who_sent_them() -> None:
    """Weighted by examples; NaN, infinity and lists do not count, and end nothing."""

    def answer(message: Message) -> RecordDict:
        node = message.metadata.dst_node_id
        by_node: dict[int, dict[str, Any]] = {
            1: {"accuracy": 1.0},
            2: {"accuracy": math.nan, "f1": math.inf},
            3: {"accuracy": 0.5, "history": [0.1, 0.2]},
            4: {"f1": 1},
            5: {},
        }
        return trained(message, **by_node[node])

    guarded = Guarded(FedAvg())
    _, metrics = guarded.train(answer)

    expected = {"accuracy": pytest.approx((10 * 1.0 + 30 * 0.5) / 40), "f1": 1.0}
    assert dict(metrics or {}) == expected
    assert guarded.metrics["train"] == (expected, {"accuracy": 2, "f1": 1})


def test_failed_clients_do_not_count_in_metrics() -> None:
    """A refused update's metrics are refused with it."""
    guarded = Guarded(FedAvg())
    _, metrics = guarded.train(
        lambda message: (
            update(model(), 0, {"accuracy": 0.0})
            if message.metadata.dst_node_id == 1
            else trained(message, accuracy=1.0)
        )
    )
    assert dict(metrics or {}) == {"accuracy": 1.0}


def test_the_records_of_a_reply_are_left_to_who_holds_them() -> None:
    """The strategy's reply is without optional metrics; the record that was sent still has them."""
    records: list[MetricRecord] = []

    def answer(message: Message) -> RecordDict:
        content = trained(message, accuracy=1.0)
        records.append(content.metric_records["metrics"])
        return content

    Guarded(FedAvg()).train(answer)
    assert all("accuracy" in record for record in records)


def test_a_strategys_own_metrics_stay_and_are_demanded() -> None:
    """QFedAvg reads ``train_loss``: whoever does not send it fails, the others make the model."""

    def answer(message: Message) -> RecordDict:
        node = message.metadata.dst_node_id
        losses = {1: {}, 2: {"train_loss": math.nan}}
        return trained(message, accuracy=0.5, **losses.get(node, {"train_loss": 1.0}))

    strategy = QFedAvg(client_learning_rate=0.1, train_loss_key="train_loss")
    guarded = Guarded(strategy, needs_metrics=frozenset({"train_loss"}))
    arrays, metrics = guarded.train(answer)

    assert arrays is not None
    assert guarded.failures == {
        1: "the strategy needs the metric train_loss, which is missing",
        2: "the strategy needs the metric train_loss, which is nan",
    }
    assert dict(metrics or {}) == {"train_loss": 1.0, "accuracy": 0.5}


def test_a_loss_below_zero_is_refused() -> None:
    """QFedAvg takes a power of it: one would make the model of all clients NaN."""

    def answer(message: Message) -> RecordDict:
        return trained(message, train_loss=-0.5 if message.metadata.dst_node_id == 3 else 1.0)

    guarded = Guarded(QFedAvg(client_learning_rate=0.1), needs_metrics=frozenset({"train_loss"}))
    arrays, _ = guarded.train(answer)
    assert arrays is not None
    assert guarded.failures == {3: "the strategy needs the loss train_loss, which is below 0: -0.5"}


def test_an_evaluation_need_not_send_what_training_must() -> None:
    """The loss that QFedAvg needs for training is an ordinary metric of an evaluation."""
    guarded = Guarded(QFedAvg(client_learning_rate=0.1), needs_metrics=frozenset({"train_loss"}))

    def answer(message: Message) -> RecordDict:
        some = {"train_loss": 2.0} if message.metadata.dst_node_id == 1 else {}
        return evaluated(message, **some)

    guarded.guard.aggregate_evaluate(1, _replies(ask(NODES, model(), "evaluate"), answer))
    assert guarded.metrics["evaluate"][1] == {"loss": 5, "train_loss": 1}


@pytest.mark.parametrize("what", ["order of layers", "key of the model", "key of the metrics"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_neither_order_nor_keys_of_one_client_change_anything(name: str, what: str) -> None:
    """Whether the first client is different, or the last: the same model, bit for bit."""

    def other(message: Message) -> RecordDict:
        content = trained(message)
        arrays = content.array_records["arrays"]
        names = list(arrays)
        if what == "order of layers":
            names.reverse()
        return RecordDict(
            {
                "model" if what == "key of the model" else "arrays": ArrayRecord(
                    {layer: arrays[layer] for layer in names}
                ),
                "numbers" if what == "key of the metrics" else "metrics": content["metrics"],
            }
        )

    results = []
    for answer in (trained, only(1, other), only(5, other)):
        random.seed(1)
        np.random.seed(1)
        guarded = Guarded(STRATEGIES[name]())
        arrays, _ = guarded.train(answer)
        assert guarded.failures == {}
        assert guarded.round_failures == []
        results.append(bytes_of(arrays))
    assert results[0] == results[1] == results[2]


def test_configured_names_are_kept_first() -> None:
    """A client with a hundred names of its own does not push out the one that is asked for."""
    replies = [Weighted(1, {**{f"m{i:03}": 1.0 for i in range(100)}, "z": 0.5})]
    means, _ = weighted_means(replies, ("z",))
    assert means["z"] == 0.5
    assert len(means) == MAX_OPTIONAL_METRICS


def test_only_so_many_names_are_kept() -> None:
    """The first 32 in alphabetical order: no client can fill the record."""
    replies = [Weighted(1, {f"m{i:03}": 1.0}) for i in reversed(range(100))]
    means, senders = weighted_means(replies)
    assert list(means) == list(senders) == [f"m{i:03}" for i in range(MAX_OPTIONAL_METRICS)]


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(st.integers(1, 2**63 - 1), finite), min_size=1, max_size=20))
@example([(weight, sys.float_info.max) for weight in (18, 4, 15)])  # shares add up to more than 1
def test_a_mean_lies_between_its_values(column: list[tuple[int, float]]) -> None:
    """For any weights and any finite values, however large."""
    means, _ = weighted_means(Weighted(weight, {"m": value}) for weight, value in column)
    values = [value for _, value in column]
    assert min(values) <= means["m"] <= max(values)


def test_evaluation_leaves_out_who_cannot_evaluate() -> None:
    """No evaluate, no examples, no metrics: out of the mean, without failing anybody."""

    def answer(message: Message) -> RecordDict | Error:
        match message.metadata.dst_node_id:
            case 1:
                return Error(2, "EVALUATE_NOT_IMPLEMENTED")
            case 2:
                return RecordDict({"metrics": MetricRecord({"num-examples": 0, "loss": 9.0})})
            case 3:
                return RecordDict()
            case _:
                return evaluated(message, accuracy=0.5)

    guarded = Guarded(FedAvg())
    metrics = guarded.evaluate(answer)

    assert dict(metrics or {}) == {"loss": pytest.approx((4 / 4 + 5 / 5) / 9), "accuracy": 0.5}
    assert guarded.metrics["evaluate"][1] == {"loss": 2, "accuracy": 2}
    assert guarded.failures == {}
    assert guarded.round_failures == []


def test_an_evaluation_by_nobody_has_no_metrics() -> None:
    """None, not an empty record or a zero."""
    assert Guarded(FedAvg()).evaluate(lambda _: Error(2, "cannot")) is None


def test_the_guard_draws_no_random_numbers() -> None:
    """Neither sampling nor privacy noise changes because replies are checked."""

    class Quiet(Failing):
        def configure_train(
            self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
        ) -> list[Message]:
            return ask(NODES, arrays)

    before = random.getstate(), pickle.dumps(np.random.get_state())
    guarded = Guarded(Quiet(model()))
    arrays, _ = guarded.train(only(2, changed(w=NAN)))

    assert arrays is not None
    assert list(guarded.failures) == [2]
    assert before == (random.getstate(), pickle.dumps(np.random.get_state()))


def test_a_model_without_fields_is_read_from_its_bytes() -> None:
    """Initial arrays that a bidi client sent have no dtype and shape beside their bytes."""
    bare = ArrayRecord(
        {name: Array("", (), array.stype, array.data) for name, array in model().items()}
    )
    guarded = Guarded(FedAvg())
    arrays, _ = guarded.train(trained, bare)
    assert arrays is not None
    assert guarded.failures == {}
