"""Every backbone keeps the one interface, is the network that was published, and learns."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainer.backbones import NAMES, BackboneError, Features, make, norms
from trainer.backbones.count import multiply_adds, parameters
from trainer.backbones.ghost import DecoupledAttention, GhostModule
from trainer.backbones.layers import GlobalDepthwise, rounded

OWN = [name for name in NAMES if ":" not in name]


def test_it_gives_a_map_and_a_summary_of_the_sizes_it_names(small, made):
    backbone, _ = made(small)
    with torch.no_grad():
        features = backbone(torch.rand(2, 3, backbone.side, backbone.side) * 2 - 1)
    assert isinstance(features, Features)
    assert features.map.shape[:2] == (2, backbone.channels)
    assert features.map.dim() == 4
    assert features.summary.shape == (2, backbone.width)
    assert torch.isfinite(features.map).all()
    assert features.summary.std() > 0.01


@pytest.mark.parametrize("side", [112, 150, 224])
@pytest.mark.parametrize("name", [*OWN, "timm:efficientnet_b0", "timm:vit_tiny_patch16_224"])
def test_it_takes_the_sides_that_packs_have(name, side):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    backbone = make(name, side, 16, 1.0 if name.startswith("timm:") else 0.125).eval()
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, side, side)).summary.shape == (1, 16)


def test_the_tokens_of_a_vision_transformer_lie_in_the_map_where_its_patches_lie_in_the_picture():
    pytest.importorskip("timm")
    backbone = make("timm:vit_tiny_patch16_224", 64, 16).eval()
    backbone.model.blocks = nn.Identity()  # attention would let every patch tell of every other
    images = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        before = backbone(images).map
        images[:, :, 16:32, 48:64] = 1
        touched = (backbone(images).map != before).any(dim=(0, 1))
    assert before.shape == (1, 192, 4, 4)
    assert touched.nonzero().tolist() == [[1, 3]]


@pytest.mark.parametrize(
    ("name", "width", "dim", "published", "millions"),
    [
        # "Total params: 6,880,288", "FLOPs: 272,105,108": Flops.ipynb of the authors' repository HamadYA/GhostFaceNets.
        ("ghostfacenet-v2", 1.3, 512, 6_880_288, 272.11),
        # The table of GhostFaceNets (Alansari et al. 2023), in millions, here rounded as it has them.
        ("ghostfacenet-v2-2", 1.3, 512, 6.84e6, 76.51),
        ("ghostfacenet-v1", 1.3, 512, 4.09e6, 215.65),
        ("ghostfacenet-v1-2", 1.3, 512, 4.06e6, 60.29),
        # Chen et al. 2018, table 2: 0.99 M, and 221 M multiply-adds (as SeesawFaceNets, arXiv:1908.09124, quotes it).
        ("mobilefacenet", 1.0, 128, 0.99e6, 221),
        # insightface's table of ArcFace networks in PyTorch: R50 6.3 and R100 12.1 GFLOPs. Parameters of the second:
        # 65.13 M for LResNet100E-IR in OpenVINO's model zoo; of the first, 43.59 M in papers that compare with it.
        ("ir50", 1.0, 512, 43.59e6, 6300),
        ("ir100", 1.0, 512, 65.13e6, 12100),
    ],
)
def test_the_published_width_has_the_published_parameters_and_cost(name, width, dim, published, millions):
    backbone = make(name, 112, dim, width)
    moments = sum(
        each.numel() for each in backbone.buffers() if each.dim()
    )  # Keras and MXNet count them, too
    counts = (parameters(backbone), parameters(backbone) + moments)
    assert min(abs(count - published) for count in counts) <= 0.02 * published
    assert multiply_adds(backbone, 112) / 1e6 == pytest.approx(millions, rel=0.02)


def test_ghostfacenet_v2_has_exactly_the_authors_parameters():
    """6,795,720 that are trained and 84,568 moments: every layer is there, and no other."""
    backbone = make("ghostfacenet-v2", 112, 512, 1.3)
    assert parameters(backbone) == 6_795_720
    assert sum(each.numel() for each in backbone.buffers() if each.dim()) == 84_568


def test_plain_convolutions_make_the_channels_that_ghost_modules_make_at_a_greater_cost():
    """Nothing else is another, or a comparison would not be of ghost modules."""
    ghost, plain = (make(name, 112, 512, 1.3) for name in ("ghostfacenet-v1", "ghostfacenet-v1-plain"))
    assert not any(isinstance(each, GhostModule) for each in plain.modules())
    others = [
        {
            name: tuple(each.shape)
            for name, each in backbone.named_parameters()
            if not name.startswith("blocks") or "skip" in name
        }
        for backbone in (ghost, plain)
    ]
    assert others[0] == others[1]
    assert multiply_adds(plain, 112) > 1.5 * multiply_adds(ghost, 112)


@pytest.mark.parametrize("name", ["ghostfacenet-v2", "mobilefacenet", "ir50"])
def test_half_the_width_costs_a_good_third_at_most(name):
    full, half = (make(name, 112, 64, width) for width in (1.0, 0.5))
    assert parameters(half) < 0.4 * parameters(full)
    assert multiply_adds(half, 112) < 0.4 * multiply_adds(full, 112)


def test_a_few_steps_make_a_loss_fall(small):
    """Eight pictures of eight people, learnt by heart."""
    if small.startswith("timm:"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    backbone = make(small, 64, 16, 1.0 if small.startswith("timm:") else 0.25)
    classes = nn.Linear(16, 8)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *classes.parameters()], lr=2e-3)
    images, people = torch.rand(8, 3, 64, 64) * 2 - 1, torch.arange(8)
    losses = []
    for _ in range(6):
        loss = functional.cross_entropy(classes(backbone(images).summary), people)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-2:]) < 0.8 * losses[0]


def test_every_layer_learns(small, made):
    """No parameter is left out of what the summary and the map depend on."""
    backbone, _ = made(small)
    features = backbone.train()(torch.rand(2, 3, backbone.side, backbone.side) * 2 - 1)
    (features.summary.square().sum() + features.map.square().sum()).backward()
    backbone.eval()
    lost = [name for name, parameter in backbone.named_parameters() if parameter.grad is None]
    for parameter in backbone.parameters():
        parameter.grad = None
    assert not lost


def test_norm_layers_are_listed_by_their_names():
    found = norms(make("mobilefacenet", 112, 32, 0.25))
    assert list(found)[:3] == ["stem.0.norm", "stem.1.norm", "blocks.0.main.0.norm"]
    assert list(found)[-2:] == ["head.depthwise.norm", "head.point.norm"]
    assert all(isinstance(layer, nn.BatchNorm2d) for layer in found.values())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("resnet",), r"there is no backbone 'resnet'; there are .*ghostfacenet-v2.*timm:NAME"),
        (("ir50", 16), "ir50: side 16"),
        (("ir50", 112, 0), "dim 0"),
        (("ir50", 112, 64, -1.0), "width -1"),
        (("timm:efficientnet_b0", 112, 64, 0.5), "one width"),
        (("timm:nothing_b0",), "timm has no model 'nothing_b0'"),
        (
            ("timm:vit_tiny_r_s16_p8_224", 112),
            "timm:vit_tiny_r_s16_p8_224 cannot be made for pictures of 112×112",
        ),
    ],
)
def test_what_cannot_be_made_is_named(arguments, told):
    if told.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(BackboneError, match=told):
        make(*arguments)


def test_channels_are_rounded_but_hardly_down():
    assert [rounded(channels, 8) for channels in (1, 8, 11, 12, 20, 83.2)] == [8, 8, 16, 16, 24, 80]
    assert [rounded(channels, 4) for channels in (20.8, 665.6)] == [20, 664]


def test_a_ghost_module_makes_half_of_its_channels_of_the_other_half():
    torch.manual_seed(0)
    module = GhostModule(6, 8, active=True).eval()
    x = torch.randn(1, 6, 5, 5)
    with torch.no_grad():
        out = module(x)
        assert torch.equal(out[:, :4], module.primary(x))
        module.cheap.conv.weight[1] = 0
        changed = (module(x) != out).any(dim=(0, 2, 3))
    assert changed.tolist() == [False] * 5 + [True] + [False] * 2


def test_the_attention_of_v2_sees_along_rows_and_columns_and_weighs_in_0_to_1():
    torch.manual_seed(0)
    module = DecoupledAttention(3, 4).eval()
    x = torch.randn(1, 3, 15, 15)
    with torch.no_grad():
        weights = module(x)
        x[:, :, 6, 6] += (
            1  # the cell (3, 3) at half the resolution, and two more on each side are reached from there
        )
        touched = (module(x) != weights).any(dim=(0, 1))
    assert weights.shape == (1, 4, 15, 15)
    assert 0 < weights.min() < weights.max() < 1
    rows, columns = touched.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 12, 3, 12)


def test_the_global_depthwise_convolution_weighs_each_channel_by_place():
    head = GlobalDepthwise(2, 3, 1).eval()
    x = torch.arange(18.0).reshape(1, 2, 3, 3)
    with torch.no_grad():
        head.depthwise.conv.weight[:] = 0
        head.depthwise.conv.weight[0, 0, 0, 1] = 2.0  # sees the 1
        head.depthwise.conv.weight[1, 0, 2, 2] = 1.0  # sees the 17
        head.point.conv.weight[:] = torch.tensor([10.0, 1.0])[None, :, None, None]
        out = head(x)
    assert out.item() == pytest.approx(
        10 * 2 * 1 + 17, rel=1e-4
    )  # the norms' epsilon is all that lies between
