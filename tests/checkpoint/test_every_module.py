"""What the checkpointer saves of a module of torch, it resumes as `load_state_dict(strict=True)` would."""

import pytest
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from detrex_backbones import DetectionCheckpointer
from tests.checkpoint.every_module import built, module_classes, used

BUILT = {name: kind for name, kind in module_classes().items() if getattr(built(kind), "state_dict", dict)()}


def test_there_are_many():
    names = " ".join(BUILT)
    assert len(BUILT) > 70
    assert all(
        word in names
        for word in ("LazyLinear", "LSTM", "FakeQuantize", "ConvBn2d", "MultiheadAttention", "FrozenBatch")
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("around", [False, True], ids=["alone", "in a model"])
@pytest.mark.parametrize("name", BUILT)
def test_each_resumes_what_was_saved_of_it(tmp_path, name, around):
    def made():
        part = built(BUILT[name])
        return nn.ModuleDict({"stem": nn.Conv2d(3, 4, 1), "queue": part}) if around else part

    saved = made()
    used(saved["queue"] if around else saved)
    assert not any(map(is_lazy, saved.state_dict().values()))
    DetectionCheckpointer(saved, tmp_path).save("model")
    peer, resumed = made(), made()
    peer.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True)["model"])
    DetectionCheckpointer(resumed, tmp_path).resume_or_load("")
    for model in (peer, resumed):
        state = model.state_dict()
        assert state.keys() == saved.state_dict().keys()
        for key, value in saved.state_dict().items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(state[key], value, rtol=0, atol=0, equal_nan=True)
            else:
                assert state[key] == value


NAMES = ("student", "teacher", "encoder_k", "momentum_encoder", "key_encoder", "backbone_k", "teacher_ema", "ema_net",
         "decoder", "mask_token", "blocks")  # fmt: skip
BUFFERS = ("queue", "queue_ptr", "steps", "n_averaged", "total_ops", "weight_momentum", "num_batches_tracked",
           "attn_mask", "relative_position_index", "cls_token", "ema_weight", "pixel_mean")  # fmt: skip


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("name", NAMES + BUFFERS)
def test_a_name_of_the_model_is_the_models(tmp_path, name, wrapper):
    """Whatever else files mean by it: an optimiser's, a queue's, a teacher's, a counter's."""

    def made():
        net = nn.ModuleDict({"backbone": nn.Conv2d(3, 4, 1), "head": nn.Linear(4, 4)})
        if name in NAMES:
            net[name] = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        else:
            net.register_buffer(name, torch.rand(3))
            net["head"].register_buffer(name, torch.tensor(5))
        return net

    saved, model = used(made()), made()
    torch.save({f"{wrapper}{key}": value for key, value in saved.state_dict().items()}, tmp_path / "w.pth")
    report = DetectionCheckpointer(model).load(tmp_path / "w.pth")
    assert report == {}
    for key, value in saved.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
