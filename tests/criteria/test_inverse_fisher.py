"""Blocks of the inverse Fisher matrix: equal to the recursion, to a dense inverse, and to the constrained minimum."""

import pytest
import torch

from prunebench.criteria.inverse_fisher import compensated, inverse_diagonal

DAMPING = 1e-3


def gradients(count, size, blocks=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    # Directions of very different strength, as gradients have.
    return torch.randn(blocks, count, size, generator=generator).double() * torch.logspace(-3, 1, size).double()


def dense(g):
    return DAMPING * torch.eye(g.shape[1]).double() + sum(torch.outer(row, row) for row in g) / len(g)


def recursion(g):
    """Singh & Alistarh's: one gradient after the other."""
    inverse = torch.eye(g.shape[1]).double() / DAMPING
    for row in g:
        v = inverse @ row
        inverse = inverse - torch.outer(v, v) / (len(g) + row @ v)
    return inverse


@pytest.mark.parametrize(("count", "size"), [(3, 8), (8, 8), (40, 8), (1, 5), (6, 1)])
def test_the_diagonal_is_the_recursion_s_and_the_dense_inverse_s(count, size):
    g = gradients(count, size)
    found = inverse_diagonal(g, DAMPING)
    assert found.dtype == torch.float64
    for block, diagonal in zip(g, found, strict=True):
        torch.testing.assert_close(diagonal, torch.linalg.inv(dense(block)).diagonal(), rtol=1e-8, atol=0)
        torch.testing.assert_close(diagonal, recursion(block).diagonal(), rtol=1e-6, atol=0)


def test_by_hand():
    # One gradient (2, 1), λ = 1: F = [[5, 2], [2, 2]], F⁻¹ = [[2, -2], [-2, 5]]/6.
    g = torch.tensor([[[2.0, 1.0]]])
    torch.testing.assert_close(inverse_diagonal(g, 1.0), torch.tensor([[2 / 6, 5 / 6]]).double())
    # Removing the first of w = (3, 4): w₂ + F₂₁w₁/F₂₂ = 4 + 2·3/2.
    found = compensated(g, torch.tensor([[3.0, 4.0]]), torch.tensor([[False, True]]), 1.0)
    assert found.tolist() == [[0.0, pytest.approx(7.0, rel=1e-12)]]


@pytest.mark.parametrize("count", [3, 30])
def test_one_removed_weight_is_the_surgeon_s_update(count):
    g, w = gradients(count, 6, blocks=6), torch.randn(6, 6, generator=torch.Generator().manual_seed(1)).double()
    found = compensated(g, w, ~torch.eye(6, dtype=torch.bool), DAMPING)
    for q, (block, weights) in enumerate(zip(g, w, strict=True)):
        inverse = torch.linalg.inv(dense(block))
        expected = weights - weights[q] * inverse[:, q] / inverse[q, q]
        torch.testing.assert_close(found[q], expected, rtol=1e-7, atol=1e-9)
        change = found[q] - weights
        # The increase of the quadratic model is exactly the score w²/(2[F⁻¹]_qq).
        score = weights[q] ** 2 / (2 * inverse_diagonal(block[None], DAMPING)[0, q])
        assert (0.5 * change @ dense(block) @ change).item() == pytest.approx(score.item(), rel=1e-7)


@pytest.mark.parametrize("count", [4, 40])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_many_removed_weights_reach_the_constrained_minimum(count, share):
    size = 12
    g, w = gradients(count, size), torch.randn(3, size, generator=torch.Generator().manual_seed(2)).double()
    keep = torch.rand(3, size, generator=torch.Generator().manual_seed(3)) >= share
    found = compensated(g, w, keep, DAMPING)
    assert not found[~keep].any()
    for block, weights, kept, new in zip(g, w, keep, found, strict=True):
        hessian, gone = dense(block), (~kept).nonzero().flatten()
        constraints = torch.eye(size).double()[gone]
        # KKT: [F Aᵀ; A 0][δ; μ] = [0; −w_Q]
        kkt = torch.cat(
            [torch.cat([hessian, constraints.T], 1), torch.cat([constraints, torch.zeros(len(gone), len(gone))], 1)]
        )
        right = torch.cat([torch.zeros(size).double(), -weights[gone]])
        torch.testing.assert_close(new - weights, torch.linalg.solve(kkt, right)[:size], rtol=1e-6, atol=1e-8)
        plain = weights * kept - weights
        change = new - weights
        assert change @ hessian @ change <= plain @ hessian @ plain * (1 + 1e-9)


def test_nothing_removed_changes_nothing_and_everything_removed_leaves_zeros():
    g, w = gradients(5, 4), torch.randn(3, 4)
    assert torch.equal(compensated(g, w, torch.ones(3, 4, dtype=torch.bool), DAMPING), w.double())
    assert not compensated(g, w, torch.zeros(3, 4, dtype=torch.bool), DAMPING).any()


def test_a_weight_that_no_gradient_reaches_has_the_damping_alone():
    g = gradients(9, 5)
    g[:, :, 2] = 0
    torch.testing.assert_close(inverse_diagonal(g, DAMPING)[:, 2], torch.full((3,), 1 / DAMPING).double())
