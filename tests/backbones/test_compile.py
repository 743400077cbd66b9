"""torch.compile: one graph, and no further compilation once a second image size has been seen."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from detrex_backbones import BasicStem, ResNet, make_stage
from tests.checkpoint.test_detectors_of_networks import NETS
from tests.old_libraries import skip_before
from tests.reference import assert_same_maps, noise, randomise_norms, randomise_parameters

# Below some 20,000 numbers in a map of a single image torch itself chooses another convolution, and compiles anew.
SIZES = [(128, 192), (192, 128), (256, 160), (131, 201)]


def resnet(**kwargs) -> ResNet:
    torch.manual_seed(0)
    stages = make_stage(depth=18, norm="FrozenBN", res5_dilation=2)
    return ResNet(BasicStem(norm="FrozenBN"), stages, out_features=["res3", "res5"], freeze_at=1, **kwargs)


@pytest.mark.few(1)
@pytest.mark.parametrize("mode", ["training", "inference", "fused", "recomputed"])
def test_one_graph_for_all_sizes(mode):
    torch._dynamo.reset()
    net = randomise_norms(resnet(checkpoint_stages=mode == "recomputed"))
    if mode == "fused":
        net.fuse()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(net, backend=counter, fullgraph=True)
    counts = []
    with torch.set_grad_enabled(mode in ("training", "recomputed")):
        for size in SIZES:
            compiled(noise(2, 3, *size))
            counts.append(counter.frame_count)
    assert counts[:3] == [1, 2, 2]
    skip_before("torch", "2.14", "sizes that are odd may be compiled for once more")
    assert counts[3] == 2


@pytest.mark.slow
def test_compiled_maps_and_gradients_are_the_same():
    torch._dynamo.reset()
    net = randomise_norms(resnet())
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    results = []
    for run in (net, compiled):
        net.zero_grad()
        maps = run(noise(2, 3, 65, 97))
        sum(value.mean() for value in maps.values()).backward()
        results.append((maps, {name: value.grad for name, value in net.named_parameters() if value.grad is not None}))
    (maps, gradients), (compiled_maps, compiled_gradients) = results
    assert_same_maps(compiled_maps, maps)
    assert_same_maps(compiled_gradients, gradients)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", NETS)
def test_other_families_are_one_graph_as_well(name):
    torch._dynamo.reset()
    net = randomise_parameters(NETS[name]()).eval()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    exported = torch.export.export(net, (noise(2, 3, 64, 96),), strict=False).module()
    with torch.no_grad():
        for run in (compiled, exported):
            assert_same_maps(run(noise(2, 3, 64, 96)), net(noise(2, 3, 64, 96)))
