"""Recording and editing layers, and that nothing stays behind."""

import pytest
import timm
import torch
from torch import nn

from dnd_core.errors import LayerNotFound, NetworkError
from dnd_core.hooks import OUTPUT, attached, edit, main_tensor, record, with_main_tensor
from dnd_core.layers import list_layers
from dnd_core.networks import Network


@pytest.fixture
def module():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


@pytest.fixture
def images():
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def hooks_of(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def layers_of(module, size=8):
    return list_layers(Network(module, lambda x: x, (3, size, size)))


def test_what_was_recorded_is_what_the_layer_answered_before_it_was_changed_in_place(module, images):
    with torch.no_grad(), record(module, ["0", "1", OUTPUT]) as held:
        answer = module(images)
        convolved = nn.functional.conv2d(images, module[0].weight, module[0].bias)
        assert torch.equal(held["0"], convolved)
        assert torch.equal(held["1"], convolved.relu())
        assert torch.equal(held[OUTPUT], answer)
    assert hooks_of(module) == 0


def test_a_transform_is_applied_when_the_layer_runs(module, images):
    with torch.no_grad(), record(module, ["0"], lambda name, tensor: tensor.amin((2, 3))) as held:
        module(images)
    assert held["0"].shape == (5, 4)
    assert (held["0"] < 0).any()


def test_no_hook_remains_after_an_exception(module, images):
    infos = layers_of(module)
    seen = []

    def fail():
        seen.append(hooks_of(module))
        raise KeyError

    with pytest.raises(KeyError), record(module, ["0", OUTPUT]), edit(module, infos, {"0": {1: 0.0}}):
        fail()
    assert seen == [3]
    assert hooks_of(module) == 0
    with pytest.raises(LayerNotFound, match="nowhere"), record(module, ["0", "nowhere"]):
        pass
    with pytest.raises(RuntimeError), record(module, ["0"]):
        module(images[:, :2])
    assert hooks_of(module) == 0


def test_a_hook_that_cannot_be_attached_takes_the_others_with_it(module):
    class Refusing(nn.Module):
        def register_forward_hook(self, hook):
            raise RuntimeError("no hooks here")

    with pytest.raises(RuntimeError, match="no hooks"), attached([(module[0], print), (Refusing(), print)]):
        pass
    assert hooks_of(module) == 0


def test_an_edit_replaces_whole_maps_and_nothing_else(module, images):
    infos = layers_of(module)
    with torch.no_grad():
        with record(module, ["0"]) as before:
            plain = module(images)
        with edit(module, infos, {"0": {2: 1.5, 0: -2.0}}), record(module, ["0"]) as after:
            module(images)
        assert (after["0"][:, 2] == 1.5).all()
        assert (after["0"][:, 0] == -2.0).all()
        assert torch.equal(after["0"][:, [1, 3]], before["0"][:, [1, 3]])
        # By hand: channels 0 and 2 behind the ReLU are 0 and 1.5 everywhere.
        pooled = before["0"].relu().mean((2, 3))
        pooled[:, 0], pooled[:, 2] = 0.0, 1.5
        with edit(module, infos, {"0": {2: 1.5, 0: -2.0}}):
            assert torch.allclose(module(images), module[4](pooled), atol=1e-6)
        assert torch.equal(module(images), plain)


def test_the_output_can_be_edited(module, images):
    with torch.no_grad(), edit(module, layers_of(module), {OUTPUT: {1: 9.0}}):
        answer = module(images)
    assert (answer[:, 1] == 9).all()
    assert not (answer[:, 0] == 9).any()


@pytest.mark.parametrize(
    ("name", "layer"), [("swin_tiny_patch4_window7_224", "layers.0"), ("vit_tiny_patch16_224", "blocks.0")]
)
def test_units_are_found_where_the_layer_keeps_them(name, layer):
    depth = {"depths": (1, 1, 1, 1)} if "swin" in name else {"depth": 1}
    module = timm.create_model(name, img_size=32, num_classes=2, **depth).eval()
    infos = layers_of(module, 32)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), edit(module, infos, {layer: {3: 0.25}}), record(module, [layer]) as held:
        module(images)
    assert (held[layer][..., 3] == 0.25).all()
    assert not (held[layer][..., [2, 4]] == 0.25).any()


def test_wrong_edits_are_refused(module):
    infos = layers_of(module)
    with pytest.raises(NetworkError, match=r"units 0 to 3, not 4"), edit(module, infos, {"0": {4: 0.0}}):
        pass
    with pytest.raises(LayerNotFound, match="LayerInfo"), edit(module, infos[:1], {"4": {0: 0.0}}):
        pass


def test_tuples_and_mappings_answer_with_their_first_tensor():
    a, b = torch.zeros(1), torch.ones(1)
    assert main_tensor((a, None)) is a
    assert main_tensor({"aux": b, "logits": a}) is a
    assert main_tensor({"aux": b}) is b
    assert main_tensor(None) is None
    assert with_main_tensor((a, b), b) == (b, b)
    assert with_main_tensor({"aux": b, "logits": a}, b)["logits"] is b
    silent = nn.Identity()
    with pytest.raises(NetworkError, match="not with a tensor"), record(silent, [OUTPUT]):
        silent(None)
