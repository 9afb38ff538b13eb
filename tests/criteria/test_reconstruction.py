"""Rebuilding a layer's rows: against all masks by brute force, and least squares."""

import itertools

import pytest
import torch

from prunebench.criteria import reconstruction
from prunebench.criteria.reconstruction import descended, least_error, reconstructed, removal_losses


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
    w, hessian, _ = problem(9, 7)
    keep = masks(9, 7, share)
    keep[0], keep[1] = True, False
    found = least_error(w, keep, hessian)
    assert not found[~keep].any()
    for row, kept, new in zip(w, keep, found, strict=True):
        torch.testing.assert_close(new, best(row, kept, hessian), rtol=1e-8, atol=1e-10)


def test_one_removed_weight_by_the_surgeon_s_formula():
    w, hessian, inverse = problem(5, 5)
    found = least_error(w, ~torch.eye(5, dtype=torch.bool), hessian)
    for q in range(5):
        torch.testing.assert_close(found[q], w[q] - w[q, q] * inverse[q] / inverse[q, q], rtol=1e-9, atol=1e-12)
    losses = w.diagonal() ** 2 / (2 * inverse.diagonal())
    torch.testing.assert_close(error(w, found, hessian), losses, rtol=1e-9, atol=0)


def test_the_first_removed_is_the_best_of_all():
    w, hessian, _ = problem(40, 6)
    losses = removal_losses(w, hessian)
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
        w, hessian, _ = problem(4, size, seed)
        losses = removal_losses(w, hessian)
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
    w, hessian, _ = problem(3, 8, seed=5)
    losses = removal_losses(w, hessian)
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
    w, hessian, _ = problem(4, 8)
    w[:, 3] = w[:, 6] = 0
    losses = removal_losses(w, hessian)
    assert (losses.argsort(1)[:, :2].sort(1).values == torch.tensor([3, 6])).all()
    assert not losses[:, [3, 6]].any()


def test_losses_strictly_increase_so_that_a_row_s_order_is_kept():
    w, hessian, _ = problem(1, 9)
    losses = removal_losses(w.expand(6, 9), hessian)
    assert all(len(set(row.tolist())) == 9 for row in losses.float())


def test_chunks_of_rows_change_nothing(monkeypatch):
    w, hessian, _ = problem(7, 5)
    whole = removal_losses(w, hessian)
    monkeypatch.setattr(reconstruction, "_CHUNK", 50)
    torch.testing.assert_close(removal_losses(w, hessian), whole, rtol=1e-9, atol=0)


def test_large_layers_are_greedy_within_blocks(monkeypatch):
    w, hessian, _ = problem(7, 6)
    monkeypatch.setattr(reconstruction, "GREEDY_WORK", 7 * 6 * 5**2)  # 5 of 6 inputs at once: two blocks of 3
    found = removal_losses(w, hessian)
    for part in (slice(0, 3), slice(3, 6)):
        monkeypatch.setattr(reconstruction, "GREEDY_WORK", 1e9)
        torch.testing.assert_close(found[:, part], removal_losses(w[:, part], hessian[part, part]), rtol=1e-9, atol=0)
    monkeypatch.setattr(reconstruction, "GREEDY_WORK", 0)
    torch.testing.assert_close(removal_losses(w, hessian), w**2 * hessian.diagonal() / 2, rtol=1e-9, atol=0)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_conjugate_gradients_come_near_and_never_harm(share, monkeypatch):
    w, hessian, _ = problem(30, 40, samples=60)
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(40).double()
    keep = masks(30, 40, share)
    exact = error(w, least_error(w, keep, hessian), hessian)
    last = error(w, w * keep, hessian)
    for iterations in (1, 3, 10, 60):
        monkeypatch.setattr(reconstruction, "ITERATIONS", iterations)
        new = descended(w, keep, hessian)
        assert not new[~keep].any()
        found = error(w, new, hessian)
        assert (found <= last * (1 + 1e-9)).all()
        assert (exact <= found * (1 + 1e-9) + 1e-12).all()
        last = found
    torch.testing.assert_close(last, exact, rtol=1e-6, atol=1e-12)


def test_too_much_work_is_left_to_conjugate_gradients(monkeypatch):
    w, hessian, _ = problem(6, 40)
    keep = masks(6, 40, 0.5)
    assert torch.equal(reconstructed(w, keep, hessian), least_error(w, keep, hessian))
    monkeypatch.setattr(reconstruction, "EXACT_WORK", 0.0)
    assert torch.equal(reconstructed(w, keep, hessian), least_error(w, keep, hessian)), "it is the cheaper"
    monkeypatch.setattr(reconstruction, "ITERATIONS", 1)
    assert torch.equal(reconstructed(w, keep, hessian), descended(w, keep, hessian))
