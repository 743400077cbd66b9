"""Weights wherever a trainer put them in its file, and in whatever they are handed over."""

import io
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

from detrex_backbones import DetectionCheckpointer, LazyConfig, load_checkpoint
from detrex_backbones.checkpoint import read_checkpoint
from detrex_backbones.checkpoint.convert import convert_checkpoint
from detrex_backbones.cli import main
from detrex_backbones.errors import ArgumentError, CheckpointFileError, CheckpointMatchError
from detrex_backbones.zoo import infer_config
from tests.checkpoint.nets import assert_same_tensors, save, snapshot, weights


def net(width=8, seed=0, extra=0):
    """A small network; another `width` or number of `extra` layers is another architecture."""
    torch.manual_seed(seed)
    layers = {"conv1": nn.Conv2d(3, width, 3), "bn1": nn.BatchNorm2d(width), "conv2": nn.Conv2d(width, width, 3)}
    layers |= {f"conv{3 + at}": nn.Conv2d(width, width, 3) for at in range(extra)}
    return nn.ModuleDict(layers)


WANTED, OTHER = net().state_dict(), net(seed=1).state_dict()
WIDE, DEEP = net(16).state_dict(), net(extra=2).state_dict()


def optimizer_state():
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    return optimizer.state_dict()


def loaded(content, **options):
    """The report of a load after which the model has the weights that are wanted."""
    model = net(seed=2)
    report = load_checkpoint(model, content, **options)
    assert_same_tensors(model.state_dict(), WANTED)
    return report


# Where they are


@pytest.mark.parametrize(
    ("content", "container"),
    [
        ({"params": WANTED}, "params"),
        ({"net": WANTED, "acc": 93.1, "epoch": 7}, "net"),
        ({"model_state_dict": WANTED, "optimizer_state_dict": optimizer_state()}, "model_state_dict"),
        ({"module": WANTED, "optimizer": None, "lr_scheduler": {}, "buffer_names": []}, "module"),
        ({"trainer": {"state": {"weights": WANTED}, "opt": optimizer_state()}}, "trainer.state.weights"),
        ({"a": {"b": {"c": {"d": WANTED}}}}, "a.b.c.d"),
        ({"epoch": torch.tensor(3), "loss": np.float64(0.5), "nets": [WANTED]}, "nets.0"),
        ({"encoder": WANTED, "decoder": WIDE}, "encoder"),
        ({"nets": (WIDE, WANTED)}, "nets.1"),
        ({"discriminator": DEEP, "generator": WANTED, "criterion": {"empty_weight": torch.ones(92)}}, "generator"),
        ({"model.ema.0": WANTED}, "model.ema.0"),
        ({"optimized": WANTED}, "optimized"),
        ({"model_and_optimizer": {"model": WANTED, "optimizer": optimizer_state()}}, "model_and_optimizer.model"),
        ({"model": {"visual": WANTED, "text": {"table": torch.ones(4, 4)}}}, "model.visual"),
    ],
)
def test_weights_are_found_wherever_they_are(content, container, tmp_path):
    report = loaded(save(tmp_path, content))
    assert report.container == container
    assert loaded(content, container=container).container == container


def test_a_list_of_models_is_a_file(tmp_path):
    assert loaded(save(tmp_path, [WIDE, WANTED])).container == "1"
    assert loaded(save(tmp_path, [OTHER, WANTED]), container="1").other_containers == []


def test_a_state_of_torchs_own_stateful_objects_is_read(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is a single process
        dcp.save({"app": {"model": WANTED, "optim": optimizer_state()}}, checkpoint_id=tmp_path / "dcp")
    report = loaded(tmp_path / "dcp")
    assert (report.container, report.other_containers) == ("app.model", [])


@pytest.mark.parametrize(
    "content",
    [{"nets": [WANTED, OTHER]}, {"left": WANTED, "right": OTHER}, {"model": WANTED, "state_dict": OTHER}],
)
def test_of_several_that_fit_none_is_taken(content, tmp_path):
    model = net(seed=2)
    before = snapshot(model)
    file = save(tmp_path, content)
    with pytest.raises(CheckpointMatchError, match="it holds 2 sets of weights that fit") as caught:
        load_checkpoint(model, file)
    assert snapshot(model) == before
    containers = re.findall(r"container='([^']*)'", str(caught.value))
    assert len(containers) == 2
    assert loaded(file, container=containers[0]).other_containers == []
    with pytest.raises(CheckpointFileError, match="holds 2 sets of weights") as caught:
        read_checkpoint(file)
    assert re.findall(r"container='([^']*)'", str(caught.value)) == containers


def test_the_same_weights_twice_are_no_question():
    copy = {name: value.clone() for name, value in WANTED.items()}
    assert loaded({"one": WANTED, "two": copy}).other_containers == ["two"]
    copy["conv1.bias"] += 1
    with pytest.raises(CheckpointMatchError, match="2 sets of weights"):
        loaded({"one": WANTED, "two": copy})


def test_parts_of_one_network_are_not_taken_for_all_of_it():
    """Backbone and head stand in two mappings, and the model has both."""
    model = nn.ModuleDict({"backbone": net(), "head": nn.Linear(4, 4)})
    content = {"backbone": WANTED, "head": nn.Linear(4, 4).state_dict()}
    with pytest.raises(CheckpointMatchError, match="2 sets of weights"):
        load_checkpoint(model, content)
    assert load_checkpoint(model, content, container="backbone").scope == "backbone"


@pytest.mark.parametrize(
    ("content", "container", "others"),
    [
        ({"model": OTHER, "ema": {"module": WANTED, "updates": 9}}, "ema.module", ["model"]),
        ({"model": OTHER, "swa_state_dict": WANTED}, "swa_state_dict", ["model"]),
        ({"student": OTHER, "teacher": WANTED}, "teacher", ["student"]),
        ({"state_dict": WANTED, "current_model_state": OTHER}, "state_dict", ["current_model_state"]),
        ({"model": WANTED, "ema_state": OTHER}, "model", ["ema_state"]),
        ({"model_state": OTHER, "ema_state": WANTED, "test_err": 24.0, "ema_err": 23.5}, "ema_state", ["model_state"]),
        # Averages of another network, or of the parameters alone, don't fit.
        ({"model": WANTED, "ema": WIDE}, "model", ["ema"]),
        ({"model": WANTED, "ema": {key: OTHER[key] for key in OTHER if "running" not in key}}, "model", ["ema"]),
    ],
)
def test_averages_are_taken_where_trainers_evaluate_them(content, container, others, tmp_path):
    report = loaded(save(tmp_path, content))
    assert (report.container, report.other_containers) == (container, others)
    assert f"not taken   other weights of the file: container='{others[0]}'" in str(report)
    assert report.to_dict()["other_containers"] == others


def test_averages_come_first_where_both_lack_something():
    lacking = [{key: value for key, value in state.items() if "conv2" not in key} for state in (OTHER, WANTED)]
    model = net(seed=2)
    report = load_checkpoint(model, {"net": lacking[0], "ema": lacking[1]}, allow_missing=["conv2.*"])
    assert (report.container, report.other_containers) == ("ema", ["net"])
    assert torch.equal(model["conv1"].weight, WANTED["conv1.weight"])


@pytest.mark.parametrize(
    "content",
    [
        optimizer_state(),
        {"optimizer": {"momentum": {"conv1.weight": torch.ones(8, 3, 3, 3)}}},
        {"Optim": {"momentum": WANTED}, "optimizerG": OTHER, "optimiser_states": [OTHER]},
        {"trainer": [optimizer_state()]},
        {"opt": {"state.conv1.weight.exp_avg": torch.ones(8, 3, 3, 3), "param_groups.conv1.weight.lr": 0.1}},
    ],
)
def test_the_state_of_an_optimiser_is_no_weights(content, tmp_path):
    with pytest.raises(CheckpointFileError, match="holds no tensors in any place that trainers put them"):
        read_checkpoint(save(tmp_path, content))
    assert loaded({"opt": content, "network": WANTED}).other_containers == []
    with pytest.raises(CheckpointFileError, match=r"has no weights under container='optimizer'.*container='network'"):
        loaded({"optimizer": content, "network": WANTED}, container="optimizer")
    with pytest.raises(CheckpointFileError, match="no weights under"):
        loaded({"opt": optimizer_state(), "network": WANTED}, container="opt.state.0")


def test_errors_name_the_containers(tmp_path):
    content = {"a": WIDE, "b": {"c": DEEP}}
    with pytest.raises(CheckpointMatchError, match=r"the file also has: container='a'"):
        load_checkpoint(net(), content)
    with pytest.raises(CheckpointFileError, match=r"no weights under container='x'.*container='b\.c' or container='a'"):
        load_checkpoint(net(), save(tmp_path, content), container="x")
    with pytest.raises(CheckpointFileError, match=r"first 4 levels.*: container='a\.b\.c\.d\.e'\.$"):
        load_checkpoint(net(), {"a": {"b": {"c": {"d": {"e": WANTED}}}}})
    assert loaded({"a": {"b": {"c": {"d": {"e": WANTED}}}}}, container="a.b.c.d.e").coverage == 1
    with pytest.raises(CheckpointMatchError, match=r"none of the names that source='detr' is known by"):
        load_checkpoint(net(), content, source="detr")


def test_what_stands_beside_weights_is_kept(tmp_path):
    content = {"ema": {"module": WANTED, "updates": 9}, "nets": [OTHER, {"lr": 0.1}], "iteration": 3}
    checkpoint = read_checkpoint(save(tmp_path, content), "nets.0")
    assert checkpoint.extra["nets"] == [None, {"lr": 0.1}]
    assert (checkpoint.extra["iteration"], checkpoint.extra["ema"]["updates"]) == (3, 9)
    assert read_checkpoint({"a": {"b": WANTED}}).extra == {}


def test_small_mappings_of_tensors_are_no_question_without_a_model():
    content = {"model": WANTED, "criterion": {"empty_weight": torch.ones(92)}, "meters": {"loss": torch.ones(3)}}
    assert read_checkpoint(content).container == "model"


# Training


class Averages:
    """What keeps averages beside a model."""

    def __init__(self, weights):
        self.weights = weights

    def state_dict(self):
        return self.weights

    def load_state_dict(self, weights):
        self.weights = weights


def test_a_checkpointer_resumes_with_the_weights_that_it_saved(tmp_path):
    model = net()
    DetectionCheckpointer(model, tmp_path, ema=Averages(OTHER)).save("last", teacher=OTHER)
    resumed, averages = net(seed=2), Averages({})
    checkpointer = DetectionCheckpointer(resumed, tmp_path, ema=averages)
    checkpointer.resume_or_load("")
    assert_same_tensors(resumed.state_dict(), WANTED)
    assert_same_tensors(averages.weights, OTHER)
    torch.save({"model": WANTED, "ema": OTHER}, tmp_path / "file.pth")
    checkpointer = DetectionCheckpointer(net(seed=2), ema=Averages({}))
    checkpointer.load(tmp_path / "file.pth")
    assert (checkpointer.report.container, checkpointer.report.other_containers) == ("model", [])


def test_what_a_checkpointer_gives_is_beside_the_weights_that_were_taken(tmp_path):
    torch.save({"model": WIDE, "net": WANTED, "iteration": 3}, tmp_path / "file.pth")
    rest = DetectionCheckpointer(net(seed=2)).load(tmp_path / "file.pth")
    assert rest.keys() == {"model", "iteration"}


# The command line, and what has no model


@pytest.fixture(scope="module")
def resnets(tmp_path_factory):
    """The file of a ResNet-18 beside something else, and of two."""
    folder, other = tmp_path_factory.mktemp("files"), {key: value + 1 for key, value in weights().items()}
    torch.save({"app": {"model": weights(), "head": WANTED}}, folder / "one.pth")
    torch.save({"nets": [weights(), other]}, folder / "two.pth")
    return folder


def run(capsys, *argv):
    status = main([str(argument) for argument in argv])
    captured = capsys.readouterr()
    return status, captured.out, " ".join(captured.err.split())


@pytest.mark.slow
def test_commands_find_and_take_containers(resnets, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = resnets / "one.pth", resnets / "two.pth"
    commands = {
        "match": lambda file: ["match", "resnet/resnet18.py", file],
        "infer": lambda file: ["infer", file],
        "convert": lambda file: ["convert", file, "out.pth", "--to", "detectron2"],
        "features": lambda file: [
            *("features", "resnet/resnet18.py", "--no-picture", "--maps", "res5"),
            f"train.init_checkpoint={file}",
        ],
    }
    for name, command in commands.items():
        assert run(capsys, *command(one))[0] == 0, name
        status, _, error = run(capsys, *command(two))
        assert (status, "container='nets.0' or container='nets.1'" in error) == (1, True), name
        assert run(capsys, *command(two), "--container", "nets.1")[0] == 0, name
    assert torch.equal(torch.load("out.pth")["stem.conv1.weight"], weights()["conv1.weight"] + 1)
    status, out, _ = run(capsys, *commands["match"](two), "train.load_options.container=nets.0", "--json")
    assert (status, json.loads(out)["container"]) == (0, "nets.0")


def test_what_needs_no_model_takes_a_container(resnets, tmp_path):
    two = resnets / "two.pth"
    assert infer_config(two, container="nets.0").stages == {"depth": 18}
    done = convert_checkpoint(two, tmp_path / "out.pth", to="detectron2", container="nets.0")
    assert len(done.names) == len(weights())
    cfg = LazyConfig.load(Path(__file__).parents[2] / "configs/resnet/resnet18.py")
    assert "load_options" in cfg.train


# What they are handed over in


def saved_bytes(content=WANTED):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_whatever_holds_weights_is_read(tmp_path):
    file = save(tmp_path, WANTED)
    with file.open("rb") as opened:
        assert loaded(opened).path == str(file)
    with file.open("rb", buffering=0) as opened:
        assert read_checkpoint(opened).tensors.keys() == WANTED.keys()
    assert loaded(io.BytesIO(saved_bytes())).format == "torch"
    behind = io.BytesIO(b"header" + saved_bytes({"net": WANTED}))
    behind.seek(6)
    assert loaded(behind).container == "net"
    for given in (file, str(file), WANTED, {"net": WANTED}, io.BytesIO(saved_bytes())):
        checkpoint = read_checkpoint(given)
        assert_same_tensors(checkpoint.tensors, WANTED)
        assert loaded(checkpoint).container == checkpoint.container
        assert_same_tensors(read_checkpoint(checkpoint).tensors, WANTED)


def test_what_is_read_of_a_mapping_is_its_own():
    shared = torch.ones(4)
    given = {"model": {"a": shared, "b": shared}, "iteration": 3}
    checkpoint = read_checkpoint(given)
    shared.zero_()
    assert checkpoint.tensors["a"].tolist() == [1] * 4 and checkpoint.extra == {"iteration": 3}
    assert checkpoint.tensors["a"].data_ptr() == checkpoint.tensors["b"].data_ptr()


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (3, ""),
        (torch.ones(3), ""),
        ([WANTED], ""),
        (net(), "Of a module: module.state_dict()."),
        (b"weights", "Of bytes: io.BytesIO(data)."),
        (None, ""),
    ],
)
def test_whatever_else_is_given_is_refused_with_what_is_allowed(given, hint):
    for read in (read_checkpoint, lambda given: load_checkpoint(net(), given)):
        with pytest.raises(
            ArgumentError, match=rf"object of type {type(given).__name__}\. Allowed: a path, "
        ) as caught:
            read(given)
        assert all(word in str(caught.value) for word in ("io.BytesIO", "mapping of names", "Checkpoint", hint))


def test_files_that_were_opened_wrongly(tmp_path):
    file = save(tmp_path, WANTED)
    with file.open(encoding="latin1") as opened, pytest.raises(CheckpointFileError, match=r"as text.*open\(path, 'rb'"):
        read_checkpoint(opened)
    with (tmp_path / "new").open("wb") as opened, pytest.raises(CheckpointFileError, match=r"open\(path, 'rb'\)"):
        read_checkpoint(opened)
    buffer = io.BytesIO()
    torch.save(WANTED, buffer)
    with pytest.raises(CheckpointFileError, match=r"at its end, byte \d+\. Go back first: file\.seek\(0\)"):
        read_checkpoint(buffer)
    for data in (b"", b"no checkpoint" * 99, saved_bytes()[:-99]):
        with pytest.raises(CheckpointFileError, match="an open file"):
            read_checkpoint(io.BytesIO(data))


def test_a_checkpoint_that_was_read_has_one_container():
    checkpoint = read_checkpoint({"a": WANTED, "b": OTHER}, "a")
    assert loaded(checkpoint, container="a").container == "a"
    with pytest.raises(ArgumentError, match=r"read with container='a'.*read_checkpoint\(\.\.\., container='b'\)"):
        load_checkpoint(net(), checkpoint, container="b")


@pytest.mark.parametrize(
    "wrap", [lambda state: state, lambda state: {b"model": state}, lambda state: [{b"net": state}]]
)
def test_keys_of_bytes_are_names(wrap, tmp_path):
    state = {key.encode(): value for key, value in WANTED.items()}
    report = loaded(save(tmp_path, wrap(state)))
    assert all(isinstance(entry.checkpoint_key, str) for entry in report.entries)
    assert loaded(wrap(state) if isinstance(wrap(state), dict) else state).coverage == 1
    odd = read_checkpoint(save(tmp_path, {"né".encode(): torch.ones(1), b"\xff": torch.ones(2), 3: torch.ones(3)}))
    assert set(odd.tensors) == {"né", "\\xff", "3"}
    with pytest.raises(CheckpointFileError, match=r"two of its keys become the name 'conv1\.weight'"):
        read_checkpoint(save(tmp_path, {**WANTED, b"conv1.weight": torch.ones(1)}))
