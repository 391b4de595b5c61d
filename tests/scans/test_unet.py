from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from medtwin.scans.monai_net import MonaiUNet
from medtwin.scans.norms import NORMS, make_norm
from medtwin.scans.unet import UNet, UNetShape, coordinates, fold_patches, unfold_patches

SMALL = UNetShape(cond_channels=16, norm_groups=4, head_channels=8)


def small(**changes) -> UNet:
    settings = {"channels": (8, 16), "attention_levels": (False, True), "shape": SMALL}
    return UNet(**{**settings, **changes})


def small_monai(**changes) -> MonaiUNet:
    settings = {"channels": (8, 16), "attention_levels": (False, True), "cond_channels": 16, "head_channels": 8}
    return MonaiUNet(**{**settings, **changes})


def woken(net):
    """The net with random instead of zero last layers, as after some training."""
    torch.manual_seed(1)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


@pytest.mark.parametrize("make", [small, small_monai])
@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize(("gain", "sees_noisy"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("size", [(16, 16), (19, 10), (8, 12, 10)])
def test_any_size_and_two_or_three_dimensions(make, patch, gain, sees_noisy, size) -> None:
    net = make(patch=patch, gain=gain, sees_noisy=sees_noisy, spatial_dims=len(size))
    x = torch.randn(2, 1 + sees_noisy, *size)
    out = net(x, torch.zeros(2), torch.zeros(2, 16))
    assert out.shape == (2, 1 + gain, *size)
    assert not out.any()  # the last layer is zero before training


@pytest.mark.parametrize("make", [small, small_monai])
def test_noise_level_condition_and_place_matter(make) -> None:
    net = woken(make()).eval()
    x, level, cond = torch.randn(1, 1, 16, 16), torch.tensor([0.3]), torch.randn(1, 16)
    with torch.no_grad():
        out = net(x, level, cond)
        assert (net(x, level + 0.5, cond) - out).abs().max() > 1e-3
        assert (net(x, level, -cond) - out).abs().max() > 1e-4
        flat = net(torch.zeros_like(x), level, cond)
    assert (flat[..., 6, 6] - flat[..., 9, 9]).abs().max() > 1e-4  # a constant image gives no constant output


def test_images_of_a_batch_do_not_touch() -> None:
    net = woken(small()).eval()
    x, cond = torch.randn(3, 1, 16, 16), torch.randn(3, 16)
    with torch.no_grad():
        together = net(x, torch.zeros(3), cond)
        alone = net(x[1:2], torch.zeros(1), cond[1:2])
    assert torch.allclose(together[1:2], alone, atol=1e-5)


def test_checkpointing_changes_memory_not_gradients() -> None:
    """Level by level: the more levels recompute, the fewer numbers wait for the backward pass."""
    x, gradients, waiting = torch.randn(2, 1, 16, 16), [], []
    for levels in ((), (False, True), (True, False), (True, True)):
        torch.manual_seed(0)
        net = woken(small(shape=replace(SMALL, checkpoint_levels=levels)))
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, k=kept: k.append(t.numel()) or t, lambda t: t):
            loss = net(x, torch.zeros(2), torch.zeros(2, 16)).square().sum()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
        waiting.append(sum(kept))
    for other in gradients[1:]:
        assert torch.allclose(gradients[0], other, rtol=1e-4, atol=1e-5)
    assert waiting[3] < min(waiting[1:3])
    assert max(waiting[1:3]) < waiting[0]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [(16, 16), (8, 12, 10)])
def test_every_norm(norm, size) -> None:
    net = woken(small(shape=replace(SMALL, norm=norm), spatial_dims=len(size)))
    x = torch.randn(2, 1, *size)
    out = net(x, torch.zeros(2), torch.zeros(2, 16))
    assert out.shape == x.shape
    out.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize(("size", "form"), [((16, 16), torch.channels_last), ((8, 8, 8), torch.channels_last_3d)])
def test_channels_last_is_about_memory_alone(size, form) -> None:
    nets = [woken(small(shape=replace(SMALL, channels_last=last), spatial_dims=len(size))) for last in (False, True)]
    nets[1].load_state_dict(nets[0].state_dict())
    assert not nets[0].middle.conv1.weight.is_contiguous(memory_format=form)
    assert nets[1].middle.conv1.weight.is_contiguous(memory_format=form)  # loading weights does not change it
    given = torch.randn(2, 1, *size), torch.zeros(2), torch.randn(2, 16)
    outs = [net(*given) for net in nets]
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-4, atol=1e-4)
    for out in outs:
        out.square().mean().backward()
    for one, two in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-3, atol=1e-4)


def test_norms_are_what_they_are_called() -> None:
    x = 3 + 2 * torch.randn(2, 8, 5, 7)
    layer, rms = (make_norm(kind, 8, 4)(x) for kind in ("layer", "rms"))
    assert torch.allclose(layer, nn.LayerNorm(8)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), atol=1e-5)
    assert torch.allclose(layer.mean(dim=1), torch.zeros(2, 5, 7), atol=1e-5)
    assert torch.allclose(rms, x / x.square().mean(dim=1, keepdim=True).sqrt(), atol=1e-4)
    assert make_norm("group", 10, 4).num_groups == 2


def test_dropout_acts_in_training_only() -> None:
    net = woken(small(dropout=0.5))
    x, level, cond = torch.randn(1, 1, 16, 16), torch.zeros(1), torch.zeros(1, 16)
    with torch.no_grad():
        assert not torch.equal(net(x, level, cond), net(x, level, cond))
        net.eval()
        assert torch.equal(net(x, level, cond), net(x, level, cond))


def test_patches_are_the_pixels_of_a_square() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    folded = fold_patches(x, 2)
    assert folded.shape == (1, 4, 2, 2)
    assert sorted(folded[0, :, 0, 1].tolist()) == [2.0, 3.0, 6.0, 7.0]
    for size in ((8, 4), (4, 8, 12)):
        x = torch.randn(2, 3, *size)
        assert torch.equal(unfold_patches(fold_patches(x, 4), 4), x)
    assert torch.equal(fold_patches(torch.arange(4.0).reshape(1, 1, 2, 2), 2).flatten().sort()[0], torch.arange(4.0))
    assert set(functional.pixel_unshuffle(torch.arange(16.0).reshape(1, 1, 4, 4), 2)[0, :, 1, 1].tolist()) == set(
        fold_patches(torch.arange(16.0).reshape(1, 1, 4, 4), 2)[0, :, 1, 1].tolist()
    )


def test_coordinates_follow_the_axes() -> None:
    grid = coordinates(torch.zeros(2, 5, 2, 4))
    assert grid.shape == (2, 10, 2, 4)
    assert grid[1, 0, :, 0].tolist() == [-0.5, 0.5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spatial_dims": 1}, "spatial_dims"),
        ({"attention_levels": (True,)}, "attention_levels"),
        ({"dropout": 1.0}, "dropout"),
        ({"patch": 0}, "patch"),
        ({"channels": (), "attention_levels": ()}, "channels"),
        ({"shape": UNetShape(norm="batch", cond_channels=16)}, "norm must be group, layer, rms, got 'batch'"),
        ({"shape": replace(SMALL, checkpoint_levels=(True,))}, "checkpoint_levels"),
    ],
)
def test_refuses_what_cannot_be_built(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)
