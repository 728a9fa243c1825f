import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import tracking
from hypothesis import given
from hypothesis import strategies as st
from imgaug import augmenters as iaa

import pipeline
from isicvision import ImageClassifier, augment_dataset, augmentation
from isicvision.model import checkpoint, devices, inputs, training
from isicvision.model.network import Network
from isicvision.model.settings import SCHEDULES, Settings

LABELS = ["benign", "malignant"]
QUICK = {"epochs": 3, "batch_size": 5, "learning_rate": 0.01, "precision": "fp32"}


def small(name="shufflenet_v2_x0_5", **options):
    return ImageClassifier(name, LABELS, **{"weights": None, "image_size": 64, "dropout": 0.3} | options)


def weights(model):
    return model.network.state_dict()


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


def fit(dataset, validation=None, model=None, **settings):
    model = model or small()
    history = model.fit(
        augment_dataset(dataset, iaa.Fliplr(0.5)), validation, progress=False, **QUICK | settings
    )
    return model, history


# Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is a whole number"),
        ({"epochs": True}, "epochs is a whole number"),
        ({"batch_size": 2.5}, "batch_size is a whole number"),
        ({"epochs": 2, "learning_rate": [0.1]}, "1 values for 2 epochs"),
        ({"learning_rate": float("nan")}, "positive numbers, not nan"),
        ({"learning_rate": -1}, "positive numbers"),
        ({"learning_rate": "high"}, "positive numbers"),
        ({"learning_rate": None}, "positive numbers"),
        ({"epochs": 2, "learning_rate": [0.1, 0.1], "schedule": "cosine"}, "no effect on a list"),
        ({"schedule": "linear"}, "schedule is 'constant' or"),
        ({"l2": -0.1}, "l2 is a weight decay"),
        ({"optimizer": "lbfgs"}, "optimizer is 'sgd' or 'adamw'"),
        ({"class_weight": "heavy"}, "class_weight is 'balanced' or None"),
        ({"freeze_epochs": 9, "epochs": 3}, "freeze_epochs is at most epochs"),
        ({"accumulate": 99}, "accumulate is at most batch_size"),
        ({"ema": 1.0}, "ema is None or a decay"),
        ({"precision": "int8"}, "precision is 'auto' or"),
        ({"patience": 0}, "patience is None or"),
        ({"train_image_size": 96.5}, "train_image_size is None or a whole number"),
        ({"train_image_size": 32}, "train_image_size is a number of pixels, 64 or more, not 32"),
    ],
)
def test_impossible_settings_are_named(dataset, settings, message):
    with pytest.raises(ValueError, match=message):
        small().fit(dataset, **settings)


def test_an_unknown_setting_is_answered_with_the_nearest_name(dataset):
    with pytest.raises(TypeError, match="'learnrate'; did you mean learning_rate"):
        small().fit(dataset, learnrate=0.1)


def test_help_shows_every_setting():
    import inspect

    shown = inspect.signature(ImageClassifier.fit).parameters
    assert {field.name for field in dataclasses.fields(Settings)} < set(shown) and "settings" not in shown


@given(st.sampled_from([*SCHEDULES]), st.floats(1e-6, 10), st.floats(1e-6, 1 - 1e-6))
def test_a_schedule_never_exceeds_its_rate_nor_reaches_zero(schedule, rate, position):
    assert 0 < Settings(learning_rate=rate, schedule=schedule).rate(0, position) <= rate * (1 + 1e-9)


def test_schedules_are_as_described():
    def at(schedule, *positions):
        return [round(Settings(learning_rate=1, schedule=schedule).rate(0, p), 3) for p in positions]

    assert at("constant", 0.1, 0.9) == [1, 1]
    assert at("step", 0.49, 0.5, 0.89, 0.9) == [1, 0.1, 0.1, 0.01]
    assert at("cosine", 0, 0.5) == [1, 0.5]
    assert at("one_cycle", 0.125, 0.25, 0.625) == [0.5, 1, 0.5]
    assert [Settings(epochs=3, learning_rate=[3, 2, 1]).rate(epoch, 0.5) for epoch in range(3)] == [3, 2, 1]


# Batches ---------------------------------------------------------------------------------------------------------


def test_a_last_batch_of_one_image_is_left_out():
    assert inputs.steps(9, 4) == [(0, 4), (4, 8)]
    assert inputs.steps(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert inputs.steps(3, 32) == [(0, 3)]
    assert inputs.steps(11, 8, least=4) == [(0, 8)]


def test_balanced_sampling_shows_each_label_as_often():
    targets = np.array([0] * 950 + [1] * 50)
    drawn = inputs.order_of(targets, Settings(sampling="balanced"), seed=0, epoch=0)
    assert len(drawn) == 1000 and 0.4 < targets[drawn].mean() < 0.6
    shuffled = inputs.order_of(targets, Settings(), seed=0, epoch=0)
    assert sorted(shuffled) == list(range(1000))
    assert not np.array_equal(shuffled, inputs.order_of(targets, Settings(), seed=0, epoch=1))


def test_worker_processes_and_the_thread_give_the_same_weights(dataset):
    thread, _ = fit(dataset, epochs=1)
    model = small()
    augmented = augment_dataset(dataset, iaa.Fliplr(0.5))
    model.fit(augmented, progress=False, workers=2, **QUICK | {"epochs": 1})
    assert same(weights(thread), weights(model))


# What is trained -------------------------------------------------------------------------------------------------


def test_head_only_leaves_the_body_as_it_is(dataset):
    model = small()
    before = {name: value.clone() for name, value in weights(model).items()}
    fit(dataset, model=model, freeze_epochs=3)
    changed = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert changed == {"head.1.weight", "head.1.bias"}


def test_head_then_body_trains_both_the_body_more_slowly(dataset):
    model = small("resnet18")
    before = {name: value.clone() for name, value in weights(model).items()}
    fit(dataset, model=model, freeze_epochs=1, body_rate=1e-12, l2=0, epochs=2)
    after = weights(model)
    assert torch.allclose(after["body.conv1.weight"], before["body.conv1.weight"], atol=1e-8)
    assert not torch.equal(after["body.bn1.running_mean"], before["body.bn1.running_mean"])
    assert not torch.allclose(after["head.1.weight"], before["head.1.weight"], atol=1e-4)


def test_frozen_stages_keep_weights_and_statistics(dataset):
    model = small("resnet18")
    before = {name: value.clone() for name, value in weights(model).items()}
    fit(dataset, model=model, frozen_stages=2, optimizer="adamw", learning_rate=0.001)
    frozen = [name for name in before if name.startswith(("body.conv1", "body.bn1", "body.layer1"))]
    assert len(frozen) > 10 and all(torch.equal(weights(model)[name], before[name]) for name in frozen)
    assert not torch.equal(weights(model)["body.layer2.0.conv1.weight"], before["body.layer2.0.conv1.weight"])
    table = model.summary().set_index("stage")
    assert table.loc[["stem", "layer1"], "trainable"].sum() == 0 and table.loc["layer2", "trainable"] > 0
    with pytest.raises(ValueError, match="9, but the network has 5 stages"):
        fit(dataset, model=model, frozen_stages=9)


def test_training_images_may_be_smaller_than_those_of_validation_and_prediction(dataset):
    train, test = dataset.split(0.5, 0.5)
    model, history = fit(train, test, model=small(image_size=96), train_image_size=64, epochs=1)
    plain, _ = fit(train, model=small(image_size=64), epochs=1)
    assert same(weights(model), weights(plain))
    assert not np.array_equal(model.predict_proba(test), plain.predict_proba(test))
    truth = (test.table["label"] == "malignant").to_numpy()
    right = (model.predict_proba(test).argmax(1) == truth).mean()
    assert history.table["validation_accuracy"].iloc[0] == pytest.approx(right)
    assert model.metadata["image_size"] == 96 and model.metadata["training"]["train_image_size"] == 64
    memory = model.summary()["activations_mib"].iloc[-1]
    assert memory == plain.summary()["activations_mib"].iloc[-1]


def test_accumulated_parts_give_the_step_of_the_whole_batch(dataset):
    """AlexNet has no batch norm, which would see the parts; dropout is off, as its mask belongs to a part."""
    runs = [
        fit(dataset, model=small("alexnet", dropout=0.0), accumulate=parts, batch_size=8, epochs=1, l2=0)
        for parts in (1, 4)
    ]
    one, four = (history.step_loss for _, history in runs)
    assert np.allclose(one, four, atol=1e-5) and len(one) == 3


def test_balanced_class_weights_raise_the_rare_label(dataset):
    rare = dataset.relabel({path: None for path in dataset.table.query("label == 'malignant'")["path"][3:]})
    scores = []
    for settings in ({}, {"class_weight": "balanced"}, {"sampling": "balanced"}):
        model = small(dropout=0.0)
        model.fit(rare, progress=False, **QUICK | {"epochs": 4, "batch_size": 8} | settings)
        scores.append(model.predict_proba(rare)[:, 1].mean())
    assert scores[1] > scores[0] and scores[2] > scores[0]


def test_label_smoothing_keeps_scores_from_the_ends(dataset):
    sure, smooth = (
        fit(dataset, epochs=8, label_smoothing=share)[0].predict_proba(dataset).max() for share in (0.0, 0.4)
    )
    assert smooth < sure


def test_the_moving_average_of_the_weights_is_what_remains(dataset):
    plain, averaged = (fit(dataset, ema=decay)[0] for decay in (None, 0.9))
    assert not same(weights(plain), weights(averaged))
    still, _ = fit(dataset, ema=0.0)  # a decay of 0 forgets at once
    assert same(weights(plain), weights(still))


def test_a_slow_moving_average_follows_quickly_at_first(dataset):
    start = small()
    fit(dataset, model=start, epochs=1, learning_rate=1e-12, l2=0)
    plain, averaged = (fit(dataset, ema=decay)[0] for decay in (None, 0.9999))
    begin, end, mean = (model.network.head[-1].weight for model in (start, plain, averaged))
    assert (mean - begin).norm() > 0.3 * (end - begin).norm()  # a ten-thousandth a step would be nothing yet


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_l2_pulls_the_weights_towards_zero(dataset, optimizer):
    free, held = (
        fit(dataset, optimizer=optimizer, l2=share, learning_rate=0.05)[0].network.head[-1].weight.norm()
        for share in (0, 0.9)
    )
    assert held < 0.95 * free


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_each_precision_learns_and_is_written_down(dataset, precision):
    model, history = fit(dataset, precision=precision, epochs=4)
    assert history.table["train_loss"].iloc[-1] < history.table["train_loss"].iloc[0]
    assert model.metadata["training"]["precision"] == history.precision == precision
    assert weights(model)["head.1.weight"].dtype == torch.float32


def test_auto_takes_another_precision_only_where_it_pays(dataset, monkeypatch):
    monkeypatch.setattr(training, "TRIAL_STEPS", 2)
    for times, chosen in (({"fp32": 1.0, "bf16": 0.5}, "bf16"), ({"fp32": 1.0, "bf16": 0.9}, "fp32")):
        monkeypatch.setattr(devices, "time_precisions", lambda *_, times=times: times)
        assert fit(dataset, precision="auto", epochs=1)[1].precision == chosen


def test_auto_times_real_steps_and_leaves_the_network_alone(dataset):
    network = small().network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    times = devices.time_precisions(network, batch, torch.tensor([0, 1, 0, 1]))
    assert list(times) == ["fp32", "bf16"] and min(times.values()) > 0
    assert same(before, network.state_dict())


# Validation, best, patience --------------------------------------------------------------------------------------


def test_best_keeps_the_weights_of_the_best_epoch(dataset):
    train, test = dataset.split(0.5, 0.5)
    model, history = fit(train, test, keep="best", epochs=5, learning_rate=0.03)
    scores = model.predict_proba(test)[:, 1]
    best = history.table["validation_roc_auc"].max()
    truth = (test.table["label"] == "malignant").to_numpy()
    pairs = scores[truth][:, None] - scores[~truth][None]
    assert (pairs > 0).mean() + (pairs == 0).mean() / 2 == pytest.approx(best)


def test_patience_stops_when_nothing_improves(dataset):
    train, test = dataset.split(0.5, 0.5)
    _, history = fit(train, test, patience=2, epochs=9, learning_rate=1e-9, l2=0, model=small(dropout=0))
    assert len(history) < 9
    with pytest.raises(ValueError, match="give validation="):
        fit(train, patience=2)


def test_on_epoch_sees_the_history_grow(dataset):
    seen = []
    fit(dataset, model=small(), epochs=2)
    model = small()
    model.fit(
        dataset, progress=False, on_epoch=lambda history: seen.append(len(history)), **QUICK | {"epochs": 2}
    )
    assert seen == [1, 2]


# Stop and go on --------------------------------------------------------------------------------------------------


def test_a_finished_run_is_not_run_again(dataset, tmp_path, monkeypatch):
    first = small().fit(dataset, progress=False, checkpoint=tmp_path, **QUICK)
    monkeypatch.setattr(training.Training, "_step", None)
    model = small()
    again = model.fit(dataset, progress=False, checkpoint=tmp_path, **QUICK)
    assert again.table.equals(first.table) and again.step_loss == first.step_loss


def test_a_pipeline_that_was_used_meanwhile_is_the_same_training(dataset, tmp_path):
    pipeline = iaa.Fliplr(0.5)
    augmented = augment_dataset(dataset, pipeline)
    first = small().fit(augmented, progress=False, checkpoint=tmp_path, **QUICK)
    pipeline(images=[np.zeros((8, 8, 3), np.uint8)] * 2)
    assert small().fit(augmented, progress=False, checkpoint=tmp_path, **QUICK).step_loss == first.step_loss


def test_a_resumed_run_keeps_the_precision_that_auto_took(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "TRIAL_STEPS", 2)
    auto = QUICK | {"precision": "auto"}
    for times in (
        {"fp32": 1.0, "bf16": 0.5},
        {"fp32": 1.0, "bf16": 0.9},
    ):  # the second time it is a close thing
        monkeypatch.setattr(devices, "time_precisions", lambda *_, times=times: times)
        history = small().fit(dataset, progress=False, checkpoint=tmp_path, **auto)
        assert history.precision == "bf16"


def test_a_checkpoint_of_another_training_is_refused(dataset, tmp_path):
    small().fit(dataset, progress=False, checkpoint=tmp_path, **QUICK)
    for other, name in ((dataset, "l2"), (dataset.sample(12, balanced=True), "images")):
        settings = QUICK | ({"l2": 0.1} if name == "l2" else {})
        with pytest.raises(
            ValueError, match=rf"{pipeline.OTHER_TRAINING}, with other {name}.*delete the checkpoints there"
        ):
            small().fit(other, progress=False, checkpoint=tmp_path, **settings)


def test_other_validation_order_or_sublabels_are_another_training(dataset, tmp_path):
    train, validation = dataset.split(0.5, 0.5)
    fit(train, validation, checkpoint=tmp_path)
    turned = dataclasses.replace(train, table=train.table[::-1].reset_index(drop=True))
    for other, seen, what in (
        (train, None, "validation"),
        (train, train, "validation"),
        (turned, validation, "images_order"),
    ):
        with pytest.raises(ValueError, match=f"another training, with other {what}"):
            fit(other, seen, checkpoint=tmp_path)


def test_pipelines_that_hold_functions_are_the_same_training_in_the_next_process(dataset, tmp_path):
    def held():  # a new function each time, at another address
        return iaa.Lambda(func_images=lambda images, *_: images, seed=1)

    described = {augmentation.described([held(), *junk]) for junk in ([], [])}
    assert len(described) == 1 and " at 0x" not in described.pop()


@pytest.mark.parametrize("name", ["mnasnet0_5"])
def test_networks_that_go_by_versions_are_loaded_and_go_on(dataset, tmp_path, name):
    model, _ = fit(dataset, dataset, model=small(name), epochs=2, ema=0.9, keep="best", checkpoint=tmp_path)
    loaded = ImageClassifier.load(model.save(tmp_path / "model"))
    assert same(weights(model), weights(loaded))
    again, _ = fit(dataset, dataset, model=small(name), epochs=2, ema=0.9, keep="best", checkpoint=tmp_path)
    assert same(weights(model), weights(again))


def test_a_damaged_checkpoint_is_named(dataset, tmp_path):
    small().fit(dataset, progress=False, checkpoint=tmp_path, **QUICK)
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is not a whole checkpoint"):
        small().fit(dataset, progress=False, checkpoint=tmp_path, **QUICK)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells what is mapped")
def test_a_checkpoint_that_was_read_is_not_mapped_so_that_windows_can_replace_it(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1)
    checkpoint.save(file, {"best": {"weight": torch.ones(200, 200)}}, optimizer, {})
    parts, _ = checkpoint.load(file)
    assert parts["best"]["weight"].sum() == 40_000
    assert str(file) not in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_an_interrupted_save_leaves_the_earlier_checkpoint(dataset, tmp_path, monkeypatch):
    small().fit(dataset, progress=False, checkpoint=tmp_path, **QUICK)
    file = tmp_path / "checkpoint.safetensors"
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(file, {"network": {}}, torch.optim.SGD([torch.zeros(1)], lr=1), {})
    assert file.read_bytes() == before


def test_a_loss_that_explodes_stops_and_the_last_good_weights_are_back(dataset):
    model = small()
    before = {name: value.clone() for name, value in weights(model).items()}
    with pytest.raises(FloatingPointError, match=r"lower the rate.*last good weights"):
        fit(dataset, model=model, learning_rate=1e20)
    assert same(before, weights(model))
    first, _ = fit(dataset, epochs=1, learning_rate=0.01)
    model = small()
    with pytest.raises(FloatingPointError, match="loss became .* in epoch 2"):
        fit(dataset, model=model, epochs=3, learning_rate=[0.01, 1e20, 1e20])
    assert same(weights(first), weights(model))


def test_a_last_step_that_explodes_is_seen_before_anything_is_kept(dataset, tmp_path):
    model = small()
    with pytest.raises(
        FloatingPointError, match="loss became .* in epoch 2"
    ):  # the second epoch is one step, its loss finite
        fit(dataset, model=model, epochs=2, batch_size=24, learning_rate=[0.01, 1e30], checkpoint=tmp_path)
    again = small()
    with pytest.raises(FloatingPointError, match="loss became .* in epoch 2"):
        fit(dataset, model=again, epochs=2, batch_size=24, learning_rate=[0.01, 1e30], checkpoint=tmp_path)
    assert same(weights(model), weights(again))
    assert np.isfinite(model.predict_proba(dataset)).all()
    parts, state = checkpoint.load(tmp_path / "checkpoint.safetensors")
    assert state["at"]["epoch"] == 1 and all(value.isfinite().all() for value in parts["network"].values())


def test_numbers_of_numpy_are_numbers(dataset, tmp_path):
    model = small(image_size=np.int64(64), dropout=np.float32(0.25), seed=np.int64(3))
    numpys = {
        "batch_size": np.int64(8),
        "l2": np.float32(0.5),
        "learning_rate": np.float32([0.25, 0.5, 0.25]),
    }
    fit(dataset, model=model, checkpoint=tmp_path / "checkpoint", **numpys)
    metadata = ImageClassifier.load(model.save(tmp_path / "model")).metadata
    assert (metadata["dropout"], metadata["seed"], metadata["training"]["learning_rate"]) == (
        0.25,
        3,
        [0.25, 0.5, 0.25],
    )


def test_validation_without_a_sound_image_is_refused_and_the_model_stays(dataset, tmp_path):
    model, _ = fit(dataset)
    before, metadata = {name: value.clone() for name, value in weights(model).items()}, dict(model.metadata)
    finer = dataset.table.assign(
        sublabel=[f"{label}{n % 2}" for n, label in enumerate(dataset.table["label"])]
    )
    finer = dataclasses.replace(dataset, table=finer)
    with pytest.raises(
        ValueError, match="no validation image that can be read:\n.*0.jpg: it cannot be read .No such file"
    ):
        broken = [str(tmp_path / f"{n}.jpg") for n in range(len(dataset))]
        nothing = dataclasses.replace(dataset, table=dataset.table.assign(path=broken))
        fit(finer, nothing, model=model, sublabels=True)
    with pytest.raises(ValueError, match="give validation="):
        fit(finer, model=model, sublabels=True, keep="best")
    assert same(before, weights(model)) and model.metadata == metadata


def test_what_was_learnt_for_earlier_weights_is_forgotten_when_training_begins(dataset):
    model, _ = fit(dataset)
    model.calibrate(dataset)
    model.decide_at(0.3)

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(dataset, model=model, on_epoch=stop)
    assert (model.metadata["temperature"], model.metadata["decision"], model.metadata["training"]) == (
        1.0,
        None,
        None,
    )


def test_a_folder_that_takes_no_checkpoint_is_said_before_training(dataset, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(training.Training, "epoch", None)
    with pytest.raises(OSError, match="checkpoint=.*file cannot be written to"):
        fit(dataset, checkpoint=tmp_path / "file")


def test_a_disk_that_is_full_costs_the_checkpoint_and_not_the_training(dataset, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.warns(UserWarning, match="could not be written.*the training continues"):
        _, history = fit(dataset, checkpoint=tmp_path)
    assert len(history) == QUICK["epochs"]


@pytest.mark.parametrize(
    ("error", "settings", "advice"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried…"),
            {"batch_size": 32},
            "batch_size=16, or accumulate=2",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            {"batch_size": 32, "accumulate": 4},
            "batch_size=4, or accumulate=8",
        ),
        (MemoryError(), {"batch_size": 1}, "a smaller image_size"),
    ],
)
def test_out_of_memory_says_which_batch_size_to_try(dataset, monkeypatch, error, settings, advice):
    def forward(*_, **__):
        raise error

    monkeypatch.setattr(Network, "forward", forward)
    with pytest.raises(MemoryError, match=advice):
        fit(dataset, **settings)


# Range test, trackers --------------------------------------------------------------------------------------------


def test_the_range_test_suggests_a_rate_that_learns_and_leaves_the_model_alone(dataset):
    model = small()
    before = {name: value.clone() for name, value in weights(model).items()}
    found = model.find_learning_rate(dataset, progress=False, batch_size=6)
    table = found.table
    assert same(before, weights(model))
    assert list(table.columns) == ["learning_rate", "loss", "smooth_loss"]
    assert table["learning_rate"].is_monotonic_increasing and 1e-6 < found.suggestion < 0.3


def test_the_suggestion_is_a_tenth_of_the_best_rate_not_of_one_long_after_it(dataset, monkeypatch):
    def epoch(training):
        for step in range(len(training.plan)):
            rate = training._rate(training.at["epoch"] * len(training.plan) + step)
            training.at["step_loss"].append(abs(np.log10(rate / 0.01)))
        training.at["epoch"] += 1

    monkeypatch.setattr(training.Training, "epoch", epoch)
    assert 0.001 <= small().find_learning_rate(dataset, progress=False).suggestion <= 0.002


def test_a_range_test_takes_any_seed(dataset):
    found = small(seed=2**40).find_learning_rate(dataset, progress=False, batch_size=5, precision="fp32")
    assert len(found.table) > 5


def test_a_range_test_of_one_image_is_refused(dataset):
    with pytest.raises(ValueError, match="range test needs two images"):
        small().find_learning_rate(dataset.sample(1, balanced=True), progress=False)


def test_tensorboard_gets_settings_and_epochs(dataset, tmp_path, monkeypatch):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(tmp_path)
    options = {"progress": False, "tracker": "tensorboard"}
    small().fit(dataset, **options, **QUICK | {"epochs": 2, "precision": "auto"})
    (run,) = (tmp_path / "outputs" / "tracking" / "tensorboard").iterdir()
    events = accumulators.EventAccumulator(str(run / "isicvision")).Reload()
    assert [event.step for event in events.Scalars("train_loss")] == [1, 2]
    assert "epoch" not in events.Tags()["scalars"]
    settings = next(run.rglob("hparams.yml")).read_text(encoding="utf-8")
    for line in ("batch_size: 5", "image_size: 64", "seed: 0", "precision: fp32"):
        assert line in settings
    small().fit(dataset, **options, **QUICK | {"epochs": 1})
    assert len([*run.parent.iterdir()]) == 2


def test_mlflow_gets_settings_and_epochs(dataset, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")  # as Azure ML does
    mlflow.set_tracking_uri(None)
    options = {"progress": False, "tracker": "mlflow"}
    small().fit(dataset, **options, **QUICK | {"epochs": 2, "precision": "auto"})
    (run,) = mlflow.search_runs(experiment_names=["isicvision"], output_format="list")
    shown = {"batch_size": "5", "image_size": "64", "seed": "0", "precision": "fp32"}
    assert run.data.params.items() >= shown.items()
    assert "train_loss" in run.data.metrics and "epoch" not in run.data.metrics
    with mlflow.start_run() as own:
        small().fit(dataset, **options, **QUICK | {"epochs": 1})
        assert mlflow.active_run().info.run_id == own.info.run_id
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(None)
    small().fit(dataset, **options, **QUICK | {"epochs": 1})
    assert (tmp_path / "outputs" / "tracking" / "mlflow.db").exists()


def test_trackers_that_are_unknown_or_not_installed_are_refused(dataset, monkeypatch):
    with pytest.raises(ValueError, match=r"paper.*tensorboard"):
        small().fit(dataset, tracker="paper", epochs=1)
    monkeypatch.setattr(tracking, "_available_trackers", [])
    with pytest.raises(ModuleNotFoundError, match="tracker wandb is not installed: pip install wandb"):
        small().fit(dataset, tracker="wandb", epochs=1)


def test_16_bits_that_need_a_gpu_are_refused_on_a_cpu(dataset):
    with pytest.raises(ValueError, match="'fp16' needs a GPU"):
        fit(dataset, precision="fp16")


def test_large_images_are_scored_a_few_at_a_time():
    seen = []

    class Note(torch.nn.Linear):
        def forward(self, batch):
            seen.append(len(batch))
            return batch.float().mean((1, 2))

    for size in (64, 448):
        assert inputs.forward(Note(1, 1), np.zeros((40, size, size, 3), np.uint8)).shape == (40, 3)
    assert seen == [40, 16, 16, 8]


@pytest.mark.parametrize("workers", [-1, 1.5, "2"])
def test_impossible_workers_are_refused_before_anything_is_forgotten(dataset, workers):
    model, _ = fit(dataset, epochs=1)
    with pytest.raises(ValueError, match="workers is a number of processes"):
        model.fit(dataset, workers=workers, **QUICK)
    assert model.metadata["training"]["history"]


def test_images_for_training_and_validation_at_once_are_warned_of(dataset):
    _, validation = dataset.split(0.5, 0.5)
    with pytest.warns(UserWarning, match="12 images of the 12 to validate on were trained on"):
        fit(dataset, validation, epochs=1)


def test_an_augmentation_that_cannot_work_is_found_before_anything_is_forgotten(dataset):
    model, _ = fit(dataset, epochs=1)
    before = copy.deepcopy(model.metadata)
    halved = augment_dataset(dataset, [iaa.Resize(0.5)])
    with pytest.raises(ValueError, match="must keep size"):
        model.fit(halved, **QUICK)
    assert model.metadata == before
