"""Layers of real architectures, random weights: kind, shape, units, class and register tokens."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from dnd_core.errors import LayerNotFound, NetworkError
from dnd_core.hooks import Opaque
from dnd_core.layers import LayerInfo, list_layers, resolve
from dnd_core.networks import Network


def network(module, size=32, name="net"):
    side = size if isinstance(size, tuple) else (size, size)
    return Network(module, lambda pixels: pixels, (3, *side), name=name)


def facts(module, size=32):
    return {info.name: info for info in list_layers(network(module, size))}


def test_a_resnet_has_maps_then_vectors_then_its_output():
    found = facts(torchvision.models.resnet18(num_classes=7), 64)
    assert found["layer3"] == LayerInfo("layer3", "map", (256, 4, 4), 256, 0, None, "Sequential")
    assert found["layer4.1.conv2"].shape == (512, 2, 2)
    assert (found["fc"].kind, found["fc"].units) == ("vector", 7)
    assert list(found)[-1] == "output"
    assert (found["output"].kind, found["output"].units) == ("vector", 7)
    assert [info.unit_axis for info in (found["layer3"], found["fc"])] == [1, 1]
    assert found["layer3"].spatial
    assert not found["output"].spatial


def test_a_module_that_runs_twice_is_no_layer_and_is_told_apart_from_a_wrong_name():
    net = network(torchvision.models.resnet18(num_classes=2), 64)
    assert "layer1.0.relu" not in {info.name for info in list_layers(net)}
    with pytest.raises(LayerNotFound, match="more than once"):
        resolve(net, ["layer1.0.relu"])


def test_class_and_register_tokens_of_timm_transformers():
    plain = facts(timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=5))
    block = plain["blocks.0"]
    assert (block.kind, block.shape, block.units, block.prefix_tokens, block.grid) == (
        "tokens",
        (5, 192),
        192,
        1,
        (2, 2),
    )
    assert plain["blocks.0.mlp.fc1"].units == 768
    assert (plain["patch_embed"].shape, plain["patch_embed"].prefix_tokens) == ((4, 192), 0)
    assert plain["patch_embed.proj"].kind == "map"
    registers = facts(timm.create_model("vit_small_patch14_reg4_dinov2", img_size=42, depth=1, num_classes=0), 42)
    # 3 x 3 patches, one class token and four registers.
    assert (registers["blocks.0"].shape, registers["blocks.0"].prefix_tokens) == ((14, 384), 5)
    assert registers["blocks.0"].grid == (3, 3)
    assert block.unit_axis == -1


def test_tokens_of_an_image_that_is_not_square_lie_on_its_grid():
    module = timm.create_model("vit_tiny_patch16_224", img_size=(32, 64), depth=1, num_classes=5)
    assert facts(module, (32, 64))["blocks.0"].grid == (2, 4)


def test_the_class_token_of_a_torchvision_transformer():
    found = facts(torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=3))
    block = found["encoder.layers.encoder_layer_0"]
    assert (block.shape, block.prefix_tokens, block.grid) == ((17, 16), 1, (4, 4))
    assert found["conv_proj"].kind == "map"
    assert found["encoder.layers.encoder_layer_0.self_attention"].units == 16


def test_tokens_of_a_transformers_model():
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersForImageClassification

    config = Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8, num_register_tokens=4
    )
    found = facts(Dinov2WithRegistersForImageClassification(config))
    block = next(info for info in found.values() if info.module == "Dinov2WithRegistersLayer")
    assert (block.shape, block.prefix_tokens, block.grid) == ((21, 16), 5, (4, 4))
    assert found["output"].units == 2


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_swin_keeps_its_channels_last(library):
    if library == "timm":
        module = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, depths=(1, 1, 1, 1), num_classes=3)
        stages = {"layers.0": (16, 16, 96), "layers.2": (4, 4, 384), "norm": (2, 2, 768), "patch_embed": (16, 16, 96)}
        conv = "patch_embed.proj"
    else:
        module = torchvision.models.SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4], num_classes=3)
        # Sixteen channels on a map of 16 x 16: the shape alone cannot tell where the units are.
        stages = {"features.1": (16, 16, 16), "features.3": (8, 8, 32), "norm": (8, 8, 32)}
        conv = "features.0.0"
    found = facts(module, 64)
    for name, shape in stages.items():
        assert (found[name].kind, found[name].shape, found[name].units) == ("map_last", shape, shape[-1])
    assert found[conv].kind == "map"
    if library == "torchvision":
        assert (found["permute"].kind, found["permute"].units) == ("map", 32)


def test_convnext_turns_its_channels_inside_a_block():
    block = torchvision.models.convnext.CNBlockConfig
    found = facts(torchvision.models.ConvNeXt([block(16, 8, 1), block(8, None, 1)], num_classes=2), 64)
    kinds = [found[f"features.1.0.block.{i}"].kind for i in range(7)]
    # convolution, permute, norm, linear, GELU, linear, permute: GELU follows what it is given.
    assert kinds == ["map", "map_last", "map_last", "map_last", "map_last", "map_last", "map"]
    assert found["features.1.0"].kind == "map"
    assert found["features.0.1"].kind == "map"


def test_windows_and_attention_weights_are_not_layers():
    found = facts(
        timm.create_model("swin_tiny_patch4_window7_224", img_size=64, depths=(1, 1, 1, 1), num_classes=3), 64
    )
    assert not [name for name in found if name.startswith("layers.0.blocks.0.attn")]


def test_globs_give_each_layer_once_in_the_order_they_run():
    net = network(torchvision.models.resnet18(num_classes=2), 64)
    assert [info.name for info in resolve(net, ["output", "layer?", "layer4"])] == [
        "layer1", "layer2", "layer3", "layer4", "output"
    ]  # fmt: skip


def test_an_unknown_layer_names_the_nearest():
    net = network(torchvision.models.resnet18(num_classes=2), 64, "resnet18")
    with pytest.raises(LayerNotFound, match=r"resnet18 has no layer 'layer44'; the nearest are .*layer4"):
        resolve(net, ["layer3", "layer44"])


def test_output_is_the_networks_own_also_where_a_submodule_is_called_so():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.output = nn.Conv2d(3, 4, 1)
            self.head = nn.Linear(4, 9)

        def forward(self, x):
            return self.head(self.output(x).mean((2, 3)))

    assert [(info.name, info.units) for info in list_layers(network(Odd()))] == [("head", 9), ("output", 9)]


def test_a_segmentation_network_answers_with_maps():
    found = facts(nn.Sequential(nn.Conv2d(3, 5, 3, padding=1)))
    assert (found["output"].kind, found["output"].units) == ("map", 5)


def test_only_the_output_of_torchscript_can_be_seen():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with pytest.warns(FutureWarning):
        script = torch.jit.script(module)
    net = network(Opaque(script))
    assert [info.name for info in list_layers(net)] == ["output"]
    with pytest.raises(LayerNotFound, match="TorchScript"):
        resolve(net, ["0"])
    with pytest.raises(NetworkError, match="Opaque"):
        list_layers(network(script))


def test_a_network_that_cannot_run_on_its_input_is_said_so():
    with pytest.raises(NetworkError, match=r"cannot run on images of shape \(3, 32, 32\)"):
        list_layers(network(nn.Linear(7, 2)))
