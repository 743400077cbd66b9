import pytest
import timm
import torch
import torchvision
from torch import nn

from detrex_backbones import FrozenBatchNorm2d
from detrex_backbones.layers.frozen_batch_norm import is_frozen_norm
from tests.reference import assert_close, noise, randomise_norms

CHANNELS = 6
BUFFERS = ["weight", "bias", "running_mean", "running_var"]

freeze = FrozenBatchNorm2d.convert_frozen_batchnorm
unfreeze = FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d


def batch_norm(**kwargs) -> nn.BatchNorm2d:
    # Small variances, so that a lost eps shows.
    return randomise_norms(nn.BatchNorm2d(CHANNELS, **kwargs), low=1e-3, high=1e-2).eval()


def frozen_like(norm: nn.Module) -> FrozenBatchNorm2d:
    frozen = FrozenBatchNorm2d(CHANNELS, eps=norm.eps)
    frozen.load_state_dict(norm.state_dict())
    return frozen


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("eps", [1e-5, 1e-3])
class TestValues:
    def test_equal_batch_norm_in_evaluation(self, eps, gradient):
        norm = batch_norm(eps=eps)
        x = noise(2, CHANNELS, 5, 7).requires_grad_(gradient)
        assert_close(frozen_like(norm)(x), norm(x), 1e-6)

    def test_equal_torchvisions(self, eps, gradient):
        norm = torchvision.ops.FrozenBatchNorm2d(CHANNELS, eps=eps)
        norm.load_state_dict(batch_norm().state_dict())
        x = noise(2, CHANNELS, 5, 7).requires_grad_(gradient)
        assert_close(frozen_like(norm)(x), norm(x), 1e-6)

    def test_are_the_same_in_training(self, eps, gradient):
        frozen = frozen_like(batch_norm(eps=eps))
        x = noise(2, CHANNELS, 5, 7).requires_grad_(gradient)
        before = {name: value.clone() for name, value in frozen.state_dict().items()}
        assert torch.equal(frozen.train()(x), frozen.eval()(x))
        assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


def test_the_gradient_of_the_input_equals_batch_norms():
    norm = batch_norm()
    x, weight = noise(2, CHANNELS, 5, 7).requires_grad_(), noise(2, CHANNELS, 5, 7, seed=1)
    ours, theirs = (torch.autograd.grad((layer(x) * weight).sum(), x)[0] for layer in (frozen_like(norm), norm))
    assert_close(ours, theirs, 1e-6)


def test_a_fresh_one_is_the_identity():
    x = noise(2, CHANNELS, 5, 7)
    assert_close(FrozenBatchNorm2d(CHANNELS, eps=1e-3)(x), x, 1e-6)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("buffers", [torch.float32, torch.bfloat16])
def test_keeps_the_dtype_of_bfloat16_images(buffers, gradient):
    norm = batch_norm()
    x = noise(2, CHANNELS, 5, 7).bfloat16().requires_grad_(gradient)
    y = frozen_like(norm).to(buffers)(x)
    assert y.dtype == torch.bfloat16
    assert_close(y, norm(x.float()), 0.02)


def test_everything_is_a_buffer_that_no_optimiser_sees():
    frozen = FrozenBatchNorm2d(CHANNELS)
    assert list(frozen.parameters()) == []
    assert list(frozen.state_dict()) == BUFFERS


class TestLoading:
    def test_a_batch_norm_with_its_counter_fits_strictly(self):
        norm = nn.Sequential(batch_norm())
        state_dict = norm.state_dict()
        assert "0.num_batches_tracked" in state_dict
        frozen = nn.Sequential(FrozenBatchNorm2d(CHANNELS))
        frozen.load_state_dict(state_dict, strict=True)
        assert all(torch.equal(getattr(frozen[0], name), getattr(norm[0], name)) for name in BUFFERS)
        assert "0.num_batches_tracked" in state_dict, "the caller's state dict was changed"

    def test_any_other_stray_or_missing_key_is_an_error(self):
        state_dict = batch_norm().state_dict()
        with pytest.raises(RuntimeError, match="stray"):
            FrozenBatchNorm2d(CHANNELS).load_state_dict(state_dict | {"stray": torch.ones(1)})
        del state_dict["running_var"]
        with pytest.raises(RuntimeError, match="running_var"):
            FrozenBatchNorm2d(CHANNELS).load_state_dict(state_dict)


class TestConversion:
    def test_of_a_whole_module_keeps_values_and_each_eps(self):
        net = nn.Sequential(
            nn.Conv2d(3, CHANNELS, 3), nn.BatchNorm2d(CHANNELS), nn.Sequential(nn.BatchNorm2d(CHANNELS, eps=1e-3))
        )
        randomise_norms(net, low=1e-3, high=1e-2).eval()
        x = noise(2, 3, 9, 11)
        expected = net(x)
        assert freeze(net) is net
        assert [type(layer) for layer in (net[1], net[2][0])] == [FrozenBatchNorm2d] * 2
        assert (net[1].eps, net[2][0].eps) == (1e-5, 1e-3)
        assert_close(net(x), expected, 1e-6)
        assert_close(net.train()(x), expected, 1e-6)

    def test_of_a_batch_norm_itself_returns_the_frozen_one(self):
        norm = batch_norm()
        frozen = freeze(norm)
        assert type(frozen) is FrozenBatchNorm2d
        assert all(torch.equal(getattr(frozen, name), getattr(norm, name)) for name in BUFFERS)

    def test_takes_sync_batch_norm(self):
        norm = nn.SyncBatchNorm.convert_sync_batchnorm(batch_norm(eps=1e-3))
        frozen = freeze(nn.Sequential(norm))[0]
        assert type(frozen) is FrozenBatchNorm2d
        x = noise(2, CHANNELS, 5, 7)
        assert_close(frozen(x), norm(x), 1e-6)

    def test_takes_a_batch_norm_without_affine_parameters(self):
        norm = batch_norm(affine=False)
        x = noise(2, CHANNELS, 5, 7)
        assert_close(freeze(norm)(x), norm(x), 1e-6)

    def test_of_a_batch_norm_without_statistics_keeps_the_affine_part(self):
        norm = batch_norm(track_running_stats=False).double()
        x = noise(2, CHANNELS, 5, 7).double()
        expected = x * norm.weight[:, None, None] + norm.bias[:, None, None]
        assert_close(freeze(norm)(x), expected, 1e-6)

    def test_of_a_norm_under_two_names_replaces_both(self):
        net = nn.ModuleDict({"first": batch_norm()})
        net["second"] = net["first"]
        x = noise(2, CHANNELS, 5, 7)
        expected = net["first"](x)
        names = list(net.state_dict())
        freeze(net)
        for norm in net.values():
            assert type(norm) is FrozenBatchNorm2d
            assert_close(norm(x), expected, 1e-6)
        assert list(net.state_dict()) == names

    @pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.SyncBatchNorm])
    @pytest.mark.parametrize("tracks", [True, False])
    def test_keeps_the_names_that_a_state_dict_has(self, kind, tracks):
        norm = kind(CHANNELS)
        norm = randomise_norms(norm) if tracks else kind(CHANNELS, track_running_stats=False)
        if tracks:
            norm.num_batches_tracked.fill_(7)
        names = set(norm.state_dict())
        frozen = freeze(norm)
        assert {*frozen.state_dict()} == names | set(BUFFERS)
        thawed = unfreeze(frozen)
        assert not tracks or (frozen.num_batches_tracked == 7 and thawed.num_batches_tracked == 7)
        plain = FrozenBatchNorm2d(CHANNELS)
        assert list(plain.state_dict()) == BUFFERS
        for state in (frozen.state_dict(), plain.state_dict()):  # neither needs the other's names
            plain.load_state_dict(state)
            frozen.load_state_dict(state)

    @pytest.mark.parametrize("kwargs", [{"dtype": torch.float64}, {"dtype": torch.bfloat16}, {"device": "meta"}])
    def test_keeps_dtype_and_device(self, kwargs):
        norm = batch_norm().to(**kwargs)
        for converted in (freeze(norm), unfreeze(freeze(norm))):
            assert {converted.weight.dtype, converted.running_var.dtype} == {norm.weight.dtype}
            assert {converted.weight.device, converted.running_var.device} == {norm.weight.device}

    def test_takes_a_subclass_that_does_not_change_what_is_computed(self):
        class Named(nn.BatchNorm2d):
            pass

        assert type(freeze(Named(CHANNELS))) is FrozenBatchNorm2d

    @pytest.mark.parametrize("shape", [(6, CHANNELS), (6, CHANNELS, 5)])
    @pytest.mark.parametrize("gradient", [False, True])
    def test_takes_batch_norms_of_one_dimension_and_gives_them_back(self, shape, gradient):
        norm = randomise_norms(nn.Sequential(nn.BatchNorm1d(CHANNELS, eps=1e-3))).eval()
        x = noise(*shape).requires_grad_(gradient)
        expected = norm(x)
        frozen = freeze(norm).train()
        assert_close(frozen(x), expected, 1e-6)
        assert not list(frozen.parameters())
        back = unfreeze(frozen)[0].eval()
        assert type(back) is nn.BatchNorm1d and back.eps == 1e-3
        assert_close(back(x), expected, 1e-6)

    def test_leaves_other_norms_alone(self):
        net = nn.Sequential(nn.BatchNorm3d(CHANNELS), nn.GroupNorm(2, CHANNELS), nn.LayerNorm(CHANNELS))
        types = [type(layer) for layer in net]
        assert [type(layer) for layer in freeze(net)] == types

    def test_never_touches_a_norm_that_also_applies_an_activation(self):
        net = randomise_norms(timm.create_model("regnetx_002")).eval()
        x = noise(1, 3, 65, 97)
        with torch.no_grad():
            expected = net(x)
            acting = [type(module) for module in net.modules() if isinstance(module, timm.layers.BatchNormAct2d)]
            freeze(net)
            assert acting
            assert [type(m) for m in net.modules() if isinstance(m, timm.layers.BatchNormAct2d)] == acting
            assert_close(net(x), expected, 1e-6)


class TestWayBack:
    def test_gives_a_trainable_batch_norm_with_the_values_and_eps(self):
        norm = batch_norm(eps=1e-3)
        net = nn.Sequential(freeze(norm))
        assert unfreeze(net) is net
        back = net[0]
        assert type(back) is nn.BatchNorm2d
        assert back.eps == 1e-3
        assert list(back.state_dict()) == [*BUFFERS, "num_batches_tracked"]
        assert all(torch.equal(getattr(back, name), getattr(norm, name)) for name in BUFFERS)
        assert all(parameter.requires_grad for parameter in back.parameters())

    def test_the_batch_norm_learns_and_counts(self):
        back = unfreeze(freeze(batch_norm()).train())
        before = back.running_mean.clone()
        back(noise(2, CHANNELS, 5, 7)).sum().backward()
        assert back.num_batches_tracked == 1
        assert not torch.equal(back.running_mean, before)
        assert back.weight.grad is not None


@pytest.mark.parametrize(
    ("norm", "frozen"),
    [
        *((FrozenBatchNorm2d, True), (FrozenBatchNorm2d(4), True), ("FrozenBN", True)),
        *(("detectron2.layers.FrozenBatchNorm2d", True), (torchvision.ops.FrozenBatchNorm2d, True)),
        *((timm.layers.FrozenBatchNormAct2d, True), (torchvision.ops.FrozenBatchNorm2d(4), True)),
        *((nn.BatchNorm2d, False), (nn.BatchNorm2d(4), False), ("BN", False), ("", False), (None, False)),
        *((timm.layers.BatchNormAct2d, False), (lambda channels: FrozenBatchNorm2d(channels), False)),
    ],
)
def test_frozen_norms_are_known_by_name_class_and_import_path(norm, frozen):
    assert is_frozen_norm(norm) is frozen
