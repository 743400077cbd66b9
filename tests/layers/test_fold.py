"""A frozen norm that is folded into the weights computes what it computes beside them, in every way of running it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detrex_backbones import BasicStem, Conv2d, FrozenBatchNorm2d, ResNet, make_stage
from detrex_backbones.backbones.resnet.blocks import BottleneckBlock
from detrex_backbones.backbones.resnet.deform_block import DeformBottleneckBlock
from detrex_backbones.layers.deform_conv import DeformConv2d
from tests.reference import assert_close, noise


def randomise(net: nn.Module) -> nn.Module:
    """Statistics of every frozen norm that are not the identity's."""
    for index, module in enumerate(net.modules()):
        if isinstance(module, FrozenBatchNorm2d):
            channels = module.num_features
            module.weight.copy_(noise(channels, seed=index) * 0.2 + 1)
            module.bias.copy_(noise(channels, seed=index + 1) * 0.1)
            module.running_mean.copy_(noise(channels, seed=index + 2) * 0.1)
            module.running_var.copy_(noise(channels, seed=index + 3).abs() + 0.5)
    return net


def conv(**kwargs) -> Conv2d:
    torch.manual_seed(0)
    return randomise(Conv2d(4, 6, 3, padding=1, norm=FrozenBatchNorm2d(6, eps=1e-3), **kwargs))


def block(**kwargs) -> BottleneckBlock:
    torch.manual_seed(0)
    return randomise(BottleneckBlock(4, 8, bottleneck_channels=2, norm="FrozenBN", stride=2, **kwargs))


def unfolded(net: nn.Module) -> nn.Module:
    """A copy whose norms torch computes, as a batch norm in evaluation mode behind the convolution."""
    twin = FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(copy.deepcopy(net)).eval()
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    return twin


def gradients(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    y = net(x)
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return [y, *torch.autograd.grad((y * noise(*y.shape, seed=9).to(y)).sum(), [x, *parameters])]


@pytest.mark.parametrize("bias", [False, True])
def test_outputs_and_all_gradients_are_batch_norms(bias):
    net = conv(bias=bias).double()
    ours, theirs = (gradients(each, noise(2, 4, 9, 7).double()) for each in (net, unfolded(net)))
    assert len(ours) == len(theirs) == 3 + bias
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, 1e-12)


def test_a_whole_block_has_batch_norms_gradients():
    ours, theirs = (gradients(each, noise(2, 4, 9, 7)) for each in (block(), unfolded(block())))
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, 1e-5)


def test_numerical_gradients_agree_in_double_precision():
    net = block().double()
    names = [name for name, _ in net.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (x,))

    x = noise(1, 4, 5, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *(value.detach().requires_grad_() for value in net.parameters())))


def test_a_deformable_convolution_folds_too():
    torch.manual_seed(0)
    net = randomise(DeformBottleneckBlock(4, 8, bottleneck_channels=2, norm="FrozenBN", deform_modulated=True))
    ours, theirs = (gradients(each, noise(2, 4, 9, 7)) for each in (net, unfolded(net)))
    assert isinstance(net.conv2, DeformConv2d)
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, 1e-5)


def calls(net: nn.Module, monkeypatch) -> list[str]:
    """What was done with norms, as it happens."""
    seen: list[str] = []
    fold, forward = FrozenBatchNorm2d.fold, FrozenBatchNorm2d.forward
    monkeypatch.setattr(FrozenBatchNorm2d, "fold", lambda *args: seen.append("fold") or fold(*args))
    monkeypatch.setattr(FrozenBatchNorm2d, "forward", lambda *args: seen.append("norm") or forward(*args))
    return seen


def test_frozen_layers_and_inference_do_not_fold_anew(monkeypatch):
    net = ResNet(BasicStem(norm="FrozenBN"), make_stage(depth=18, norm="FrozenBN"), out_features=["res3"], freeze_at=2)
    seen = calls(net, monkeypatch)
    net(noise(1, 3, 32, 32))
    assert seen == ["norm"] * 5 + ["fold"] * 5  # the stem and res2 are frozen
    seen.clear()
    with torch.no_grad():
        net(noise(1, 3, 32, 32))
    assert seen == ["norm"] * 10


@pytest.mark.parametrize("kind", ["forward", "forward_pre"])
def test_a_norm_with_a_hook_is_called(kind):
    net, seen = conv(), []
    expected = net(noise(1, 4, 5, 5))
    getattr(net.norm, f"register_{kind}_hook")(lambda *args: seen.append(args[0]))
    assert_close(net(noise(1, 4, 5, 5)), expected, 1e-6)
    assert seen == [net.norm]


def test_a_norm_of_the_users_own_is_called():
    class Doubled(FrozenBatchNorm2d):
        def forward(self, x):
            return super().forward(x) * 2

    net = Conv2d(4, 6, 3, norm=Doubled(6))
    assert_close(net(noise(1, 4, 5, 5)), 2 * F.conv2d(noise(1, 4, 5, 5), net.weight, net.bias), 1e-6)


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
def test_buffers_keep_their_names_and_may_be_changed(name):
    net, x = conv(), noise(1, 4, 5, 5)
    net(x)
    assert f"norm.{name}" in net.state_dict()
    before = net(x)
    net.norm.state_dict()[name].data.mul_(1.5).add_(0.5)  # past autograd's bookkeeping
    assert not torch.allclose(net(x), before)
    assert_close(net(x), unfolded(net)(x), 1e-6)


def test_weights_may_be_changed_past_autograd():
    net, x = conv(), noise(1, 4, 5, 5)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            net(x)
            net.weight.data.mul_(2)
            assert_close(net(x), unfolded(net)(x), 1e-6)


def test_autocast_folds_in_float32_and_convolves_in_bfloat16(monkeypatch):
    net, dtypes = conv(), []
    convolve = Conv2d._conv_forward
    monkeypatch.setattr(
        Conv2d, "_conv_forward", lambda self, x, w, b: dtypes.extend((w.dtype, b.dtype)) or convolve(self, x, w, b)
    )
    # Statistics that bfloat16 would round away.
    net.norm.running_mean.fill_(100)
    net.norm.bias.copy_(net.norm.scale_and_shift()[0] * 100 + 0.01)
    with torch.autocast("cpu", torch.bfloat16):
        y = net(noise(1, 4, 5, 5))
    assert y.dtype == torch.bfloat16
    assert dtypes == [torch.float32] * 2
    assert_close(y, unfolded(net)(noise(1, 4, 5, 5)), 0.02)


@pytest.mark.parametrize("norm_dtype", [torch.float32, torch.bfloat16])
def test_a_half_precision_network_stays_so(norm_dtype):
    net = conv().bfloat16()
    net.norm.to(norm_dtype)
    y = net(noise(1, 4, 5, 5).bfloat16())
    assert y.dtype == torch.bfloat16
    assert_close(y, unfolded(net.float())(noise(1, 4, 5, 5)), 0.03)


def test_a_copy_stands_alone():
    net, x = conv(), noise(1, 4, 5, 5)
    net(x)
    twin = copy.deepcopy(net)
    expected = net(x)
    with torch.no_grad():
        twin.weight.zero_()
        twin.norm.running_mean.fill_(3)
    assert torch.equal(net(x), expected)
    assert_close(twin(x), unfolded(twin)(x), 1e-6)


def test_channels_last_stays_channels_last():
    net = conv().to(memory_format=torch.channels_last)
    x = noise(2, 4, 9, 7)
    y = net(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert_close(y, net(x), 1e-6)
    alone = net.norm(y.detach().requires_grad_())
    assert alone.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("grad", [False, True])
def test_an_exported_program_computes_the_same(grad):
    net, x = block(), noise(2, 4, 8, 8)
    with torch.set_grad_enabled(grad):
        program = torch.export.export(net, (x,))
        assert_close(program.module()(x), unfolded(net)(x), 1e-6)
    assert {f"conv{index}.norm.running_var" for index in (1, 2, 3)} <= set(program.state_dict)


def test_distributed_data_parallel_trains_it(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net, x = block(), noise(2, 4, 8, 8)
        parallel = DistributedDataParallel(copy.deepcopy(net))
        for each in (net, parallel):
            each(x).sum().backward()
        for one, other in zip(net.parameters(), parallel.parameters(), strict=True):
            assert torch.equal(one.grad, other.grad)
    finally:
        torch.distributed.destroy_process_group()
