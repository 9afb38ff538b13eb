"""Rebuilding a layer's rows: against all masks by brute force, least squares, and the sweep column by column."""

import itertools

import pytest
import torch

from prunebench.criteria import reconstruction
from prunebench.criteria.reconstruction import least_error, reconstructed, removal_losses, swept


def problem(rows, size, seed=0, samples=None):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=generator).double()
    x = torch.randn(samples or 4 * size, size, generator=generator).double() @ mix
    hessian = 2 * x.T @ x / len(x) + 1e-2 * torch.eye(size).double()
    return torch.randn(rows, size, generator=generator).double(), hessian, torch.linalg.inv(hessian)


def masks(rows, size, share, seed=0):
    return torch.rand(rows, size, generator=torch.Generator().manual_seed(seed)) >= share


def error(weights, new, hessian):
    change = new - weights
    return 0.5 * ((change @ hessian) * change).sum(1)


def best(w, keep, hessian):
    """One row's least error for a mask, by its normal equations."""
    new = torch.zeros_like(w)
    if keep.any():
        new[keep] = torch.linalg.solve(hessian[keep][:, keep], (hessian @ w)[keep])
    return new


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.6, 0.95, 1.0])
@pytest.mark.parametrize("chunk", [1 << 22, 100])
def test_the_least_error_is_each_row_s_least_squares(share, chunk, monkeypatch):
    monkeypatch.setattr(reconstruction, "_CHUNK", chunk)
    w, hessian, inverse = problem(9, 7)
    keep = masks(9, 7, share)
    keep[0], keep[1] = True, False
    found = least_error(w, keep, hessian, inverse)
    assert not found[~keep].any()
    for row, kept, new in zip(w, keep, found, strict=True):
        torch.testing.assert_close(new, best(row, kept, hessian), rtol=1e-8, atol=1e-10)


def test_one_removed_weight_by_the_surgeon_s_formula():
    w, hessian, inverse = problem(5, 5)
    found = least_error(w, ~torch.eye(5, dtype=torch.bool), hessian, inverse)
    for q in range(5):
        torch.testing.assert_close(found[q], w[q] - w[q, q] * inverse[q] / inverse[q, q], rtol=1e-9, atol=1e-12)
    losses = w.diagonal() ** 2 / (2 * inverse.diagonal())
    torch.testing.assert_close(error(w, found, hessian), losses, rtol=1e-9, atol=0)


def test_the_first_removed_is_the_best_of_all():
    w, hessian, inverse = problem(40, 6)
    losses = removal_losses(w, inverse)
    for row, loss in zip(w, losses, strict=True):
        errors = []
        for q in range(6):
            keep = torch.ones(6, dtype=torch.bool)
            keep[q] = False
            errors.append(error(row[None], best(row, keep, hessian)[None], hessian).item())
        assert int(loss.argmin()) == int(torch.tensor(errors).argmin())
        assert loss.min().item() == pytest.approx(min(errors), rel=1e-9)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_greedy_against_every_subset(count):
    """Within twice the optimum, and better than magnitude, each with the best update."""
    size, totals = 6, {"greedy": 0.0, "magnitude": 0.0, "best": 0.0}
    for seed in range(8):
        w, hessian, inverse = problem(4, size, seed)
        losses = removal_losses(w, inverse)
        for row, loss in zip(w, losses, strict=True):

            def cost(gone, row=row, hessian=hessian):
                keep = torch.ones(size, dtype=torch.bool)
                keep[list(gone)] = False
                return error(row[None], best(row, keep, hessian)[None], hessian).item()

            optimum = min(cost(gone) for gone in itertools.combinations(range(size), count))
            greedy = cost(loss.argsort()[:count].tolist())
            assert greedy >= optimum * (1 - 1e-9)
            totals["greedy"] += greedy
            totals["best"] += optimum
            totals["magnitude"] += cost(row.abs().argsort()[:count].tolist())
    assert totals["greedy"] <= 2 * totals["best"]
    assert totals["greedy"] < totals["magnitude"]


def test_greedy_losses_are_those_of_removing_one_after_the_other():
    w, hessian, inverse = problem(3, 8, seed=5)
    losses = removal_losses(w, inverse)
    for row, loss in zip(w, losses, strict=True):
        keep, total, highest, current = torch.ones(8, dtype=torch.bool), 0.0, 0.0, row.clone()
        for q in loss.argsort().tolist():
            conditional = torch.linalg.inv(hessian[keep][:, keep]).diagonal()
            costs = torch.full((8,), float("inf")).double()
            costs[keep] = current[keep] ** 2 / (2 * conditional)
            assert q == int(costs.argmin())
            highest = max(highest, costs[q].item())
            assert loss[q].item() == pytest.approx(highest, rel=1e-5)
            keep[q] = False
            total += costs[q].item()
            current = best(row, keep, hessian)
            # The losses of a row's removals add up to its error.
            assert error(row[None], current[None], hessian).item() == pytest.approx(total, rel=1e-7)


def test_zeros_go_first_and_cost_nothing():
    w, _, inverse = problem(4, 8)
    w[:, 3] = w[:, 6] = 0
    losses = removal_losses(w, inverse)
    assert (losses.argsort(1)[:, :2].sort(1).values == torch.tensor([3, 6])).all()
    assert not losses[:, [3, 6]].any()


def test_losses_strictly_increase_so_that_a_row_s_order_is_kept():
    w, _, inverse = problem(1, 9)
    losses = removal_losses(w.expand(6, 9), inverse)
    assert all(len(set(row.tolist())) == 9 for row in losses.float())


def test_chunks_of_rows_change_nothing(monkeypatch):
    w, _, inverse = problem(7, 5)
    whole = removal_losses(w, inverse)
    monkeypatch.setattr(reconstruction, "_CHUNK", 50)
    torch.testing.assert_close(removal_losses(w, inverse), whole, rtol=1e-9, atol=0)


def test_large_layers_take_each_weight_by_itself(monkeypatch):
    w, _, inverse = problem(7, 5)
    monkeypatch.setattr(reconstruction, "GREEDY_WORK", 7 * 5**3 - 1)
    assert torch.equal(removal_losses(w, inverse), w**2 / (2 * inverse.diagonal()))


@pytest.mark.parametrize("block", [1, 3, 128])
def test_the_sweep_is_the_best_that_columns_to_the_right_can_do(block, monkeypatch):
    """Step j removes column j at the least error over the columns that are right of it, by H restricted to them."""
    monkeypatch.setattr(reconstruction, "_BLOCK", block)
    w, hessian, inverse = problem(4, 8)
    keep = masks(4, 8, 0.5)
    expected = w.clone()
    for j in range(8):
        conditional = torch.linalg.inv(hessian[j:, j:])
        step = expected[:, j, None] * conditional[0] / conditional[0, 0]
        expected[:, j:] -= step.masked_fill(keep[:, j, None], 0.0)
    expected = expected.masked_fill(~keep, 0.0)
    torch.testing.assert_close(swept(w, keep, inverse), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_exact_beats_the_sweep_beats_no_update(share):
    w, hessian, inverse = problem(30, 40, samples=60)
    keep = masks(30, 40, share)
    exact, sweep, plain = (
        error(w, new, hessian) for new in (least_error(w, keep, hessian, inverse), swept(w, keep, inverse), w * keep)
    )
    assert (exact <= sweep * (1 + 1e-9)).all()
    assert (exact <= plain * (1 + 1e-9)).all()
    assert sweep.sum() < plain.sum()


def test_too_much_work_is_left_to_the_sweep(monkeypatch):
    w, hessian, inverse = problem(6, 9)
    keep = masks(6, 9, 0.5)
    torch.testing.assert_close(
        reconstructed(w, keep, hessian, inverse), least_error(w, keep, hessian, inverse), rtol=0, atol=0
    )
    monkeypatch.setattr(reconstruction, "EXACT_WORK", 0.0)
    torch.testing.assert_close(reconstructed(w, keep, hessian, inverse), swept(w, keep, inverse), rtol=0, atol=0)
