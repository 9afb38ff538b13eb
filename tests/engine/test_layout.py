"""What lies in which lane: layouts, halos and masks against images padded by hand."""

from __future__ import annotations

import numpy as np
import pytest

from prunebench.engine.layout import (
    LANES,
    SIZES,
    Layout,
    Masks,
    best_layout,
    coordinates,
    cost,
    flat_layout,
    halo_entries,
    lane_image,
    use_mask,
)  # fmt: skip

LAYOUTS = [
    (Layout(1, 4, 4, 2, 2), 8, 8), (Layout(1, 4, 4, 2, 2), 7, 8), (Layout(1, 3, 5, 3, 2), 8, 9),
    (Layout(16, 1, 1, 5, 3), 5, 3), (Layout(4, 2, 2, 2, 3), 4, 5), (Layout(2, 1, 8, 6, 1), 6, 7),
    (Layout(2, 8, 1, 1, 4), 7, 4),
    (Layout(8, 1, 2, 3, 2), 3, 4), (Layout(1, 1, 1, 3, 3), 3, 3), (Layout(1, 7, 2, 1, 3), 7, 5),
    (Layout(4, 4, 1, 4, 4), 5, 4),
]  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 7, 8, 16])
def test_best_layout_covers_the_map(chunk):
    for h in range(1, 41):
        for w in [*range(1, 20), 27, 32, 40]:
            layout = best_layout(chunk, h, w)
            assert layout.owns(h, w)
            assert layout.images <= chunk
            assert layout.images in SIZES
            assert layout.images * layout.gy * layout.gx <= LANES
            assert (layout.gy - 1) * layout.rh < h + layout.rh  # no larger regions than the map needs
            assert layout.rh == -(-h // layout.gy)
            assert layout.rw == -(-w // layout.gx)
            assert (layout.stack, layout.vector) == (1, False)


def test_best_layout_is_the_cheapest_of_what_is_allowed():
    for h, w in [(8, 8), (7, 7), (14, 14), (5, 9), (1, 30)]:
        free = best_layout(16, h, w)
        for images in SIZES:
            only = best_layout(16, h, w, (images,))
            assert only.images == images
            assert round(cost(free, h, w), 3) <= round(cost(only, h, w), 3)
        assert best_layout(2, h, w, (8, 16)).images == 2  # none of those fits: as many as there are


def test_a_map_of_one_pixel_goes_with_as_many_images_as_there_are():
    assert best_layout(16, 1, 1).images == 16
    assert best_layout(1, 8, 8).per == 16


def test_flat_layouts():
    assert flat_layout(1).vector
    for images in (4, 16, 64):
        layout = flat_layout(images)
        assert layout.images * layout.stack == images
        assert layout.images <= LANES
        assert not layout.vector


@pytest.mark.parametrize(("layout", "h", "w"), LAYOUTS)
def test_coordinates_name_every_pixel_of_every_image_once(layout, h, w):
    seen = np.zeros((layout.images, h, w), int)
    for y in range(layout.rh):
        for x in range(layout.rw):
            rows, cols, used = coordinates(layout, y, x)
            for lane in range(LANES):
                if used[lane] and rows[lane] < h and cols[lane] < w:
                    seen[lane_image(layout)[lane], rows[lane], cols[lane]] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(("layout", "h", "w"), LAYOUTS)
def test_use_mask(layout, h, w):
    mask = use_mask(layout, h, w)
    want = np.zeros((layout.rh, layout.rw, LANES), bool)
    for image in range(layout.images):
        for y in range(h):
            for x in range(w):
                want[y % layout.rh, x % layout.rw, image * layout.per + y // layout.rh * layout.gx + x // layout.rw] = (
                    True
                )
    if mask is None:
        assert want[:, :, : layout.images * layout.per].all()
    else:
        assert not want[:, :, : layout.images * layout.per].all()
        assert set(mask.tolist()) <= {0, -1}
        assert (mask.reshape(want.shape) == np.where(want, -1, 0)).all()


def regions(images, layout, pads, row, fill, halos):
    """The lane vectors of maps (N, H, W), each region with its surroundings or without (marked as nan)."""
    top, bottom, left, right = pads
    _, h, w = images.shape
    out = np.full((layout.rh + top + bottom, row, LANES), np.nan, np.float32)
    for lane in range(layout.images * layout.per):
        gy, gx = divmod(lane % layout.per, layout.gx)
        for y in range(-top, layout.rh + bottom):
            for x in range(-left, layout.rw + right):
                own = 0 <= y < layout.rh and 0 <= x < layout.rw
                iy, ix = gy * layout.rh + y, gx * layout.rw + x
                inside = 0 <= iy < h and 0 <= ix < w
                if own or halos:
                    out[y + top, x + left, lane] = images[lane // layout.per, iy, ix] if inside else fill
                if own and not halos and not inside:
                    out[y + top, x + left, lane] = 777  # what a convolution leaves behind
    return out


@pytest.mark.parametrize(("layout", "h", "w"), LAYOUTS)
@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 0, 0, 0), (2, 0, 0, 1), (0, 3, 2, 2), (4, 4, 4, 4), (0, 0, 7, 9)])
@pytest.mark.parametrize("extra", [0, 3])
def test_halo_entries(layout, h, w, pads, extra):
    """The entries, done in their order as the native code does, make the surroundings of every region."""
    g = np.random.default_rng(0)
    images = g.standard_normal((layout.images, h, w)).astype(np.float32)
    row = layout.rw + pads[2] + pads[3] + extra
    entries, masks = halo_entries(layout, h, w, pads, row)
    want = regions(images, layout, pads, row, -5.0, True)
    got = regions(images, layout, pads, row, -5.0, False)
    slack = 64
    flat = np.full(got.size + 2 * slack, 999, np.float32)
    flat[slack:-slack] = got.reshape(-1)
    for y, x, source, mask in entries.reshape(-1, 4):
        use = masks.reshape(-1, LANES)[mask] != 0
        assert -LANES <= source <= got.size
        vector = flat[slack + source : slack + source + LANES]
        at = slack + (y * row + x) * LANES
        flat[at : at + LANES] = np.where(use, vector, -5.0)
    used = layout.images * layout.per
    whole = flat[slack:-slack].reshape(got.shape)[:, : layout.rw + pads[2] + pads[3], :used]
    np.testing.assert_array_equal(whole, want[:, : layout.rw + pads[2] + pads[3], :used])
    assert (flat[:slack] == 999).all()
    assert (flat[-slack:] == 999).all()


def test_no_entries_where_all_is_inside():
    entries, _ = halo_entries(Layout(1, 4, 4, 2, 2), 8, 8, (0, 0, 0, 0), 2)
    assert entries.size == 0


def test_masks_are_kept_once():
    masks = Masks()
    a, b = np.arange(LANES) < 3, np.arange(LANES) < 4
    assert [masks.add(a), masks.add(b), masks.add(a)] == [0, 1, 0]
    assert (masks.array().reshape(2, LANES) == np.where([a, b], -1, 0)).all()


def test_words():
    assert Layout(1, 1, 1, 1, 1, vector=True).words() == "vector"
    assert Layout(16, 1, 1, 1, 1, 4).words() == "64 images"
    assert Layout(4, 2, 2, 3, 3).words() == "4 images x 2 x 2 regions"
