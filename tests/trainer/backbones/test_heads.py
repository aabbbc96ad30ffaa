"""Heads read what they are for."""

import torch

from trainer.backbones import Features
from trainer.backbones.heads import EmbeddingHead, ExpressionHead, ProjectionHead, read, unit

NOTHING = float("nan")


def test_the_expression_is_read_off_the_map_alone():
    head = ExpressionHead(2, 3).eval()
    features = Features(torch.ones(1, 2, 4, 4), torch.full((1, 5), NOTHING))
    with torch.no_grad():
        assert torch.allclose(read(head, features)[0], head.linear.weight.sum(1) + head.linear.bias)


def test_the_other_heads_read_the_summary_alone():
    features = Features(torch.full((2, 1, 1, 1), NOTHING), torch.randn(2, 5))
    for head in (EmbeddingHead(5, 3), ProjectionHead(5, 3)):
        out = read(head, features)
        assert out.shape == (2, 3)
        assert torch.isfinite(out).all()


def test_a_unit_vector_keeps_its_direction():
    assert torch.allclose(
        unit(torch.tensor([[3.0, 4.0], [0.0, -2.0]])), torch.tensor([[0.6, 0.8], [0.0, -1.0]])
    )
