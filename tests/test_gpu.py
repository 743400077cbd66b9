"""What only a GPU can show: the same numbers as on the CPU, in its precisions, layouts and engines."""

import copy

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from detrex_backbones import (
    BasicStem,
    FeatureExtractor,
    ResNet,
    TimmBackbone,
    fuse_norms,
    load_checkpoint,
    make_stage,
)
from detrex_backbones.checkpoint.place.distributed import load_checkpoint_distributed
from tests.reference import assert_same_maps, noise, randomise_norms

pytestmark = pytest.mark.gpu

FLOAT32 = 1e-4  # of what cuDNN's and the CPU's convolutions may differ by, over a network
BFLOAT16 = 0.05


def resnet(**kwargs) -> nn.Module:
    torch.manual_seed(0)
    stages = make_stage(depth=18, norm="FrozenBN", res5_dilation=2)
    net = ResNet(BasicStem(norm="FrozenBN"), stages, out_features=["res3", "res5"], freeze_at=1, **kwargs)
    return randomise_norms(net)


def step(net: nn.Module, images: torch.Tensor) -> tuple[dict, dict]:
    """The maps and the gradients, on the CPU."""
    net.zero_grad()
    maps = net(images)
    sum(value.float().square().mean() for value in maps.values()).backward()
    gradients = {name: value.grad for name, value in net.named_parameters() if value.grad is not None}
    return on_cpu(maps), on_cpu(gradients)


def on_cpu(tensors: dict) -> dict:
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().float().cpu()
        for name, value in tensors.items()
    }


@pytest.fixture(autouse=True)
def exact():
    """float32 without TF32, whatever ran before."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("recomputed", [False, True])
def test_maps_and_gradients_are_the_cpus(memory_format, recomputed):
    net, images = resnet(), noise(2, 3, 65, 97)
    maps, gradients = step(net, images)
    there = copy.deepcopy(resnet(checkpoint_stages=recomputed)).cuda().to(memory_format=memory_format)
    found, found_gradients = step(there, images.cuda().to(memory_format=memory_format))
    assert_same_maps(found, maps, FLOAT32)
    assert_same_maps(found_gradients, gradients, FLOAT32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_frozen_norms_under_autocast(dtype):
    net, images = resnet(), noise(2, 3, 65, 97)
    # Statistics that half a float would round away: the norms are folded in float32.
    for module in net.modules():
        if hasattr(module, "running_mean"):
            module.running_mean.fill_(100)
            module.bias.copy_(module.scale_and_shift()[0] * 100 + 0.01)
    maps, gradients = step(net, images)
    with torch.autocast("cuda", dtype):
        there = net.cuda()
        kinds = {value.dtype for value in there(images.cuda()).values()}
        found, found_gradients = step(there, images.cuda())
    assert kinds == {dtype}
    assert_same_maps(found, maps, BFLOAT16)
    assert found_gradients.keys() == gradients.keys()
    assert all(value.isfinite().all() for value in found_gradients.values())


def test_fused_norms():
    net, images = resnet().eval(), noise(1, 3, 65, 97)
    with torch.no_grad():
        maps = on_cpu(net(images))
        assert_same_maps(on_cpu(fuse_norms(copy.deepcopy(net).cuda())(images.cuda())), maps, FLOAT32)
        assert_same_maps(on_cpu(fuse_norms(net).cuda()(images.cuda())), maps, FLOAT32)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_atto"])
def test_timms_maps_are_the_cpus(name):
    torch.manual_seed(0)
    net, images = TimmBackbone(name).eval(), noise(1, 3, 96, 160)
    with torch.no_grad():
        maps = on_cpu(net(images))
        assert_same_maps(on_cpu(net.cuda()(images.cuda())), maps, FLOAT32)


def test_images_go_to_the_device_of_the_model():
    extractor = FeatureExtractor(resnet(), pixel_mean=[1.0, 2.0, 3.0], pixel_std=[4.0, 5.0, 6.0]).eval()
    images = [noise(3, 40, 60).mul(50).add(100).clamp(0, 255).byte() for _ in range(2)]
    with torch.no_grad():
        maps = on_cpu(extractor(images))
        found = extractor.cuda()(images)
    assert {value.device.type for value in found.values()} == {"cuda"}
    assert_same_maps(on_cpu(found), maps, FLOAT32)


@pytest.mark.parametrize("mode", ["training", "inference", "autocast"])
def test_compiled(mode):
    torch._dynamo.reset()
    net, images = resnet().cuda(), noise(2, 3, 65, 97).cuda()
    compiled = torch.compile(net, fullgraph=True)
    tolerance = BFLOAT16 if mode == "autocast" else 1e-3
    with torch.autocast("cuda", torch.bfloat16, enabled=mode == "autocast"):
        if mode == "inference":
            with torch.no_grad():
                assert_same_maps(on_cpu(compiled(images)), on_cpu(net(images)), tolerance)
            return
        (maps, gradients), (found, found_gradients) = step(net, images), step(compiled, images)
    assert_same_maps(found, maps, tolerance)
    assert {name.removeprefix("_orig_mod.") for name in found_gradients} == set(gradients)
    if mode == "training":
        assert_same_maps({k.removeprefix("_orig_mod."): v for k, v in found_gradients.items()}, gradients, tolerance)


@pytest.fixture
def one_rank(tmp_path):
    """A process group of this process alone, on the GPU."""
    distributed.init_process_group("cpu:gloo,cuda:nccl", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    torch.cuda.set_device(0)
    yield
    distributed.destroy_process_group()


def test_fsdp2_of_one_rank(one_rank, tmp_path):
    plain, images = resnet().cuda(), noise(2, 3, 65, 97).cuda()
    torch.save({name: value.cpu() for name, value in plain.state_dict().items()}, tmp_path / "weights.pth")
    for load in (load_checkpoint, load_checkpoint_distributed):
        torch.manual_seed(1)
        net = ResNet(
            BasicStem(norm="FrozenBN"),
            make_stage(depth=18, norm="FrozenBN", res5_dilation=2),
            out_features=["res3", "res5"],
            freeze_at=1,
        ).cuda()
        for block in net.res5:
            fully_shard(block)
        fully_shard(net)
        assert load(net, tmp_path / "weights.pth").coverage == 1
        assert {value.device.type for value in net.state_dict().values()} == {"cuda"}
        (maps, gradients), (found, found_gradients) = step(plain, images), step(net, images)
        assert_same_maps(found, maps, FLOAT32)
        assert_same_maps(found_gradients, gradients, FLOAT32)
