"""What every registered plugin must do, third-party ones included: the lists come from the registry."""

import copy
import math
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import prunebench as pb
from prunebench import backends, criteria, datasets, models, registry, schedules
from prunebench.criteria import updates
from prunebench.errors import DatasetMissing
from prunebench.granularities import Scored, only_sparsity, unit_sets
from prunebench.granularities.ties import tied_filters
from prunebench.masks import LayerCollapseWarning, NotPrunedWarning, lowest, prunable_modules, pruned_count
from prunebench.scopes import own_sparsities, share_out
from prunebench.units import UnitSet, forced, select

CRITERIA, SCHEDULES, SCOPES, GRANULARITIES, BACKENDS, MODELS, DATASETS = (
    registry.names(g) for g in ("criteria", "schedules", "scopes", "granularities", "backends", "models", "datasets")
)
NO_FILES = [
    name
    for name in DATASETS
    if name not in ("mnist", "fashion_mnist", "cifar10", "cifar100", "cifar10_jpeg", "imagefolder")
]


def net(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 9, 30),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(30, 5),
    )
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    return model


def samples(n=20):
    generator = torch.Generator().manual_seed(7)
    return torch.randn(n, 2, 8, 8, generator=generator), torch.randint(0, 5, (n,), generator=generator)


def data():
    x, y = samples()
    return list(zip(x.split(8), y.split(8), strict=True))


def snapshot(model):
    return {
        **{name: value.clone() for name, value in model.state_dict().items()},
        **{f"{n}.grad": p.grad.clone() for n, p in model.named_parameters() if p.grad is not None},
    }


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerCollapseWarning)
        warnings.simplefilter("ignore", NotPrunedWarning)
        yield


@pytest.mark.parametrize("name", CRITERIA)
class TestCriteria:
    def scores(self, name, model=None, seed=3):
        model = model or net()
        torch.manual_seed(seed)
        return criteria.score(name, model, prunable_modules(model), data=data())

    def test_scores_have_the_weights_shapes_and_are_finite(self, name):
        model = net()
        for layer, scores in self.scores(name, model).items():
            assert scores.shape == model.get_parameter(layer).shape
            assert torch.isfinite(scores).all()
            assert not scores.requires_grad

    def test_the_seed_makes_them_repeatable(self, name):
        assert same(self.scores(name), self.scores(name))

    @pytest.mark.parametrize("size", [20, 3])
    def test_it_does_not_matter_how_samples_are_cut_into_batches(self, name, size):
        x, y = samples()
        model = net()
        torch.manual_seed(3)
        cut = criteria.score(
            name, model, prunable_modules(model), data=list(zip(x.split(size), y.split(size), strict=True))
        )
        for layer, expected in self.scores(name).items():
            torch.testing.assert_close(cut[layer], expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())

    @pytest.mark.parametrize("training", [True, False])
    def test_the_model_is_left_as_it_was(self, name, training):
        model = net().train(training)
        model[1].eval()
        x, y = samples()
        F.cross_entropy(model(x), y).backward()
        before, modes = snapshot(model), [m.training for m in model.modules()]
        self.scores(name, model)
        assert same(snapshot(model), before)
        assert [m.training for m in model.modules()] == modes
        assert all(p.requires_grad for p in model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())

    @pytest.mark.parametrize("sparsity", [0.0, 0.31, 0.5, 0.9])
    def test_counts_are_exact_even_where_all_tie(self, name, sparsity):
        model = net()
        for module in prunable_modules(model).values():
            module.weight.data.fill_(0.25)
        masks = pb.prune(model, sparsity, name, data=data())
        total = sum(m.numel() for m in masks.values())
        assert sum(int((~m).sum()) for m in masks.values()) == pruned_count(total, sparsity)
        assert all(m.any() for m in masks.values())

    def test_kept_weights_stay_what_they_were_unless_an_update_is_declared(self, name):
        model, before = net(), net()
        masks = pb.prune(model, 0.6, name, data=data())
        for layer, mask in masks.items():
            weight = model.get_parameter(layer).detach()
            assert torch.isfinite(weight).all()
            assert not weight[~mask].any()
            assert updates.moves(name) or torch.equal(weight, before.get_parameter(layer) * mask)
        if "update" in registry.defaults(registry.get("criteria", name)[0]):
            model = net()
            for layer, mask in pb.prune(model, 0.6, f"{name}:update=false", data=data()).items():
                assert torch.equal(model.get_parameter(layer), before.get_parameter(layer) * mask)
                assert torch.equal(mask, masks[layer])

    def test_a_filter_s_score_is_one_finite_number(self, name):
        model = net()
        for layer, scores in self.scores(name, model).items():
            reduced = criteria.reducer(name)(scores.flatten(1).float())
            assert reduced.shape == (len(model.get_parameter(layer)),)
            assert torch.isfinite(reduced).all()

    def test_masks_only_shrink_along_a_schedule(self, name):
        model = net()
        pruner = pb.Pruner(model, 0.9, name, schedule="linear", steps=6, data=data())
        before = {}
        for _ in range(6):
            pruner.step()
            assert not any((pruner.masks[n] & ~before[n]).any() for n in before)
            before = {n: m.clone() for n, m in pruner.masks.items()}
        assert sum(int((~m).sum()) for m in before.values()) == pruned_count(
            sum(m.numel() for m in before.values()), 0.9
        )

    @pytest.mark.parametrize(
        "optimizer",
        [
            lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-2),
            lambda p: torch.optim.Adam(p, 1e-2, weight_decay=1e-2),
        ],
        ids=["sgd", "adam"],
    )
    def test_pruned_weights_stay_zero_through_a_hundred_steps(self, name, optimizer):
        model = net().train()
        optimizer = optimizer(model.parameters())
        x, y = samples()
        for _ in range(3):  # momentum from before the pruning
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        pruner = pb.Pruner(model, 0.8, name, schedule="one_shot", data=data())
        masks = {n: m.clone() for n, m in pruner.masks.items()}
        for _ in range(100):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            pruner.step()
            for n, mask in masks.items():
                assert not model.get_parameter(n).detach()[~mask].any()
        assert same(pruner.masks, masks)
        for n, mask in masks.items():
            assert model.get_parameter(n).detach()[mask].any(), "what is kept goes on learning"


@pytest.mark.parametrize("criterion", ["l1"])
def test_a_collapse_is_reported(criterion):
    model = net()
    model[0].weight.data *= 1e-6
    with pytest.warns(LayerCollapseWarning, match=r"0\.weight"):
        pb.prune(model, 0.9, criterion)


@pytest.mark.parametrize("name", SCHEDULES)
class TestSchedules:
    TIMES = [k / 97 for k in range(98)]

    def test_it_ends_at_exactly_one(self, name):
        assert schedules.share(name, 1.0) == 1.0

    def test_it_stays_within_zero_and_one_and_never_falls(self, name):
        shares = [schedules.share(name, t) for t in self.TIMES]
        assert all(0.0 <= s <= 1.0 for s in shares)
        assert shares == sorted(shares)

    def test_it_is_pure(self, name):
        forward = [schedules.share(name, t) for t in self.TIMES]
        assert [schedules.share(name, t) for t in reversed(self.TIMES)] == forward[::-1]

    @pytest.mark.parametrize("steps", [1, 7, 50])
    def test_a_pruner_ends_at_the_target(self, name, steps):
        model = net()
        pruner = pb.Pruner(model, 0.73, schedule=name, steps=steps)
        for _ in range(steps):
            pruner.step()
        total = sum(m.numel() for m in pruner.masks.values())
        assert sum(int((~m).sum()) for m in pruner.masks.values()) == pruned_count(total, 0.73)


@pytest.mark.parametrize("name", SCOPES)
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9, 0.97])
class TestScopes:
    def sets(self):
        generator = torch.Generator().manual_seed(0)
        return [
            UnitSet(
                (f"l{i}.weight",), torch.randn(n, generator=generator).abs() * scale, 1, lambda k, i=i: {f"l{i}": k}
            )
            for i, (n, scale) in enumerate([(40, 1.0), (500, 0.3), (25, 2.0), (1000, 0.1)])
        ]

    def test_the_total_is_exact(self, name, sparsity):
        counts = share_out(name, self.sets(), sparsity)
        wanted = [pruned_count(s.units, sparsity) for s in self.sets()]
        exact = wanted if name == "layerwise" else None
        total = sum(wanted) if exact else pruned_count(1565, sparsity)
        assert sum(counts) == total
        assert exact is None or counts == exact

    def test_every_set_keeps_a_unit(self, name, sparsity):
        sets = self.sets()
        masks = select(sets, share_out(name, sets, sparsity))
        assert len(masks) == len(sets)
        assert all(mask.any() for mask in masks.values())

    @pytest.mark.parametrize("ends", ["first=dense", "first=dense:last=dense", "last=0.4"])
    def test_the_ends_can_have_their_own(self, name, sparsity, ends):
        sets = self.sets()
        names = {s.names[0]: s.names for s in sets}
        own = own_sparsities(f"{name}:{ends}", names, {})
        counts = share_out(f"{name}:{ends}", sets, sparsity, own)
        free = [s for s in sets if s.names[0] not in own]
        assert [c for c, s in zip(counts, sets, strict=True) if s in free] == share_out(name, free, sparsity)
        assert {n: c for n, c in zip(names, counts, strict=True) if n in own} == {
            s.names[0]: pruned_count(s.units, own[s.names[0]]) for s in sets if s.names[0] in own
        }

    def test_what_is_gone_stays_gone_and_is_counted(self, name, sparsity):
        sets = self.sets()
        counts = share_out(name, sets, 0.1)
        keep = [~lowest(s.scores, c) for s, c in zip(sets, counts, strict=True)]
        generator = torch.Generator().manual_seed(5)
        again = [
            replace(s, scores=forced(torch.rand(s.units, generator=generator), k))
            for s, k in zip(sets, keep, strict=True)
        ]
        found = share_out(name, again, max(sparsity, 0.1))
        assert all(b >= a for a, b in zip(counts, found, strict=True))
        assert sum(found) == sum(share_out(name, sets, max(sparsity, 0.1)))

    def test_units_of_different_weights_come_near_the_total(self, name, sparsity):
        costs = torch.tensor([4, 4, 2, 4, 3]).repeat(40)
        sets = [replace(s, cost=costs[: s.units] if s.units <= 40 else 4) for s in self.sets()]
        counts = share_out(name, sets, sparsity)
        removed = [int(s.ladder[c]) for s, c in zip(sets, counts, strict=True)]
        slack = 2.5 * len(sets) if name == "layerwise" else 2.5
        assert abs(sum(removed) - sparsity * sum(s.weights for s in sets)) <= slack
        assert all(c < s.units for c, s in zip(counts, sets, strict=True))

    def test_it_is_pure(self, name, sparsity):
        sets = self.sets()
        before = [s.scores.clone() for s in sets]
        assert share_out(name, sets, sparsity) == share_out(name, self.sets(), sparsity)
        assert all(torch.equal(s.scores, b) for s, b in zip(sets, before, strict=True))


@pytest.mark.parametrize("name", GRANULARITIES)
class TestGranularities:
    @pytest.mark.parametrize("scope", SCOPES)
    def test_masks_cover_every_prunable_weight(self, name, scope):
        model = models.build("resnet20", (3, 16, 16), 10)
        masks = pb.prune(model, only_sparsity(name) or 0.5, granularity=name, scope=scope)
        assert list(masks) == list(prunable_modules(model))
        for layer, mask in masks.items():
            assert mask.shape == model.get_parameter(layer).shape
            assert mask.dtype == torch.bool
            assert mask.any()
            assert torch.equal(model.get_parameter(layer) != 0, mask)
        assert any(not mask.all() for mask in masks.values())

    def test_units_and_masks_have_the_same_weights(self, name):
        model = net()
        modules = prunable_modules(model)
        scores = {n: m.weight.detach().abs() for n, m in modules.items()}
        for unit_set in unit_sets(name, Scored(model, modules, scores, None, lambda s: s.sum(-1))):
            nothing = unit_set.expand(torch.zeros(unit_set.units, dtype=torch.bool))
            assert tuple(nothing) == unit_set.names
            assert sum(int((~m).sum()) for m in nothing.values()) == unit_set.weights - unit_set.staying
            assert unit_set.shapes == tuple(tuple(model.get_parameter(n).shape) for n in unit_set.names)
            one = torch.ones(unit_set.units, dtype=torch.bool)
            one[unit_set.units // 2] = False
            assert sum(int((~m).sum()) for m in unit_set.expand(one).values()) == unit_set.costs[unit_set.units // 2]

    @pytest.mark.parametrize("schedule", SCHEDULES)
    @pytest.mark.parametrize("scope", SCOPES)
    def test_masks_only_shrink_and_end_as_they_should(self, name, scope, schedule):
        model = net()
        pruner = pb.Pruner(model, only_sparsity(name) or 0.8, "random", scope, schedule, 5, granularity=name)
        before = {n: m.clone() for n, m in pruner.masks.items()}
        for _ in range(5):
            pruner.step()
            assert not any((pruner.masks[n] & ~before[n]).any() for n in before)
            before = {n: m.clone() for n, m in pruner.masks.items()}
            assert all(m.any() for m in before.values())
        assert_whole(name, model, before)

    @pytest.mark.parametrize("scope", SCOPES)
    def test_ties_are_no_problem(self, name, scope):
        model = net()
        for module in prunable_modules(model).values():
            module.weight.data.fill_(0.25)
        sparsity = only_sparsity(name) or 0.6
        masks = pb.prune(model, sparsity, granularity=name, scope=scope)
        assert_whole(name, model, masks)
        sets = sets_of(name, net())
        can = {n for s in sets for n in s.names}
        asked = sum(s.weights for s in sets) * sparsity
        gone = sum(int((~m).sum()) for n, m in masks.items() if n in can)
        largest = max(int(s.costs.max()) for s in sets)
        # Layer by layer every layer rounds for itself.
        assert abs(gone - asked) <= largest / 2 * (len(sets) if scope == "layerwise" else 1) + 0.5


def sets_of(name, model):
    modules = prunable_modules(model)
    scores = {n: m.weight.detach().abs() for n, m in modules.items()}
    return unit_sets(name, Scored(model, modules, scores, None, lambda s: s.sum(-1)))


def assert_whole(name, model, masks):
    """What a granularity removes together is gone together: by units, and by the definitions of the built-in ones."""
    for unit_set in sets_of(name, model):
        if unit_set.staying or unit_set.weights == unit_set.units:
            continue  # which weights are n_m's units follows from the scores; a single weight is always whole
        for k in range(unit_set.units):
            unit = torch.ones(unit_set.units, dtype=torch.bool)
            unit[k] = False
            kept = torch.cat([masks[n][~m] for n, m in unit_set.expand(unit).items()])
            assert kept.all() == kept.any()
    if name == "n_m":
        for layer, mask in masks.items():
            if mask.shape[1] % 4 == 0:
                assert (mask.movedim(1, -1).unflatten(-1, (-1, 4)).sum(-1) == 2).all()
            else:
                assert mask.all(), layer
    if name == "channel":
        for mask in masks.values():
            columns = mask.transpose(0, 1).flatten(1)
            assert torch.equal(columns, columns[:, :1].expand_as(columns))
    if name == "block":
        for mask in masks.values():
            for four in mask.split(4):
                assert torch.equal(four, four[:1].expand_as(four))


def test_tied_layers_lose_filters_alike():
    model = models.build("resnet20", (3, 16, 16), 10)
    masks = pb.prune(model, 0.6, granularity="filter", scope="layerwise")
    tied = [group for group in tied_filters(model, prunable_modules(model)) if len(group) > 1]
    assert len(tied) == 3
    for group in tied:
        kept = [masks[n].flatten(1).any(1) for n in group]
        assert all(torch.equal(kept[0], other) for other in kept)


@pytest.fixture(scope="module", params=[0.0, 0.9])
def subject(request):
    """A small ResNet, dense and at 90 %, with its float64 reference."""
    model = models.build("resnet20", (3, 16, 16), 10)
    x = torch.randn(9, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model.train()(x)  # running statistics other than 0 and 1
    model.eval()
    pb.prune(model, request.param)
    with torch.inference_mode():
        reference = copy.deepcopy(model).double()(x.double())
    return SimpleNamespace(model=model, x=x, reference=reference)


@pytest.mark.parametrize("name", BACKENDS)
class TestBackends:
    @pytest.fixture(autouse=True)
    def ready(self, name):
        reason = backends.unavailable(name)
        if reason:
            pytest.skip(f"{name}: {reason}")

    @pytest.mark.parametrize("batch", [1, 2, 9])
    def test_it_agrees_with_float64_at_any_batch_size(self, name, subject, batch):
        engine = pb.compile(subject.model, subject.x[:2], name, threads=1)
        found = engine(subject.x[:batch])
        assert found.shape == (batch, 10)
        assert found.dtype == torch.float32
        scale = subject.reference.abs().max()
        assert ((found.double() - subject.reference[:batch]).abs().max() / scale).item() < 1e-5

    def test_calls_do_not_depend_on_each_other(self, name, subject):
        engine = pb.compile(subject.model, subject.x[:2], name, threads=1)
        first = engine(subject.x[:3]).clone()
        kept = engine(subject.x[3:6])
        copied = kept.clone()
        engine(subject.x)
        assert torch.equal(kept, copied), "an answer handed out is the caller's"
        assert torch.equal(engine(subject.x[:3]), first)

    def test_the_model_and_the_input_are_untouched(self, name, subject):
        before, x = snapshot(subject.model), subject.x.clone()
        threads = torch.get_num_threads()
        engine = pb.compile(subject.model, subject.x, name, threads=1)
        engine(subject.x)
        assert same(snapshot(subject.model), before)
        assert torch.equal(subject.x, x)
        assert not subject.model.training
        assert torch.get_num_threads() == threads

    def test_it_says_what_it_holds(self, name, subject):
        engine = pb.compile(subject.model, subject.x, name, threads=1)
        assert engine.nbytes > 0
        rows = engine.summary()
        assert rows
        assert all({"layer", "kind", "sparsity", "kernel"} <= set(row) for row in rows)

    def test_a_strided_input_is_no_problem(self, name, subject):
        engine = pb.compile(subject.model, subject.x, name, threads=1)
        strided = subject.x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(engine(strided), engine(subject.x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
class TestModels:
    @pytest.mark.parametrize(("shape", "classes"), [((1, 28, 28), 10), ((3, 32, 32), 7)])
    def test_outputs_are_logits_of_the_classes(self, name, shape, classes):
        model = models.build(name, shape, classes).eval()
        with torch.inference_mode():
            out = model(torch.rand(2, *shape))
        assert out.shape == (2, classes)
        assert torch.isfinite(out).all()

    def test_there_is_something_to_prune_and_the_seed_decides(self, name):
        one, two = (models.build(name, (3, 32, 32), 10, 4) for _ in range(2))
        assert len(prunable_modules(one)) >= 2
        assert same(snapshot(one), snapshot(two))


@pytest.mark.parametrize("name", NO_FILES)
class TestDatasets:
    @pytest.fixture
    def loaded(self, name, tmp_path):
        try:
            return datasets.load(name, tmp_path)
        except DatasetMissing as error:
            pytest.skip(str(error))

    def test_splits_are_resident_bytes_with_labels_in_range(self, name, loaded):
        for split in (loaded.train, loaded.validation, loaded.test):
            assert split.images.dtype == torch.uint8
            assert split.images.ndim == 4
            assert split.labels.dtype == torch.int64
            assert len(split.images) == len(split.labels) > 0
            assert tuple(split.images.shape[1:]) == loaded.input_shape
            assert 0 <= int(split.labels.min()) <= int(split.labels.max()) < loaded.classes

    def test_every_class_can_be_learned_and_tested(self, name, loaded):
        for split in (loaded.train, loaded.test):
            assert len(split.labels.unique()) == loaded.classes

    def test_the_splits_are_three(self, name, loaded):
        pointers = {s.images.data_ptr() for s in (loaded.train, loaded.validation, loaded.test)}
        assert len(pointers) == 3
        assert len(loaded.validation) == pytest.approx(0.1 * (len(loaded.train) + len(loaded.validation)), rel=0.05)

    def test_training_images_have_zero_mean_and_unit_deviation(self, name, loaded):
        x = loaded.normalise(loaded.train.images).double().transpose(0, 1).flatten(1)
        assert x.mean(1).abs().max().item() < 1e-3
        assert math.isclose(x.std(1).min().item(), 1, abs_tol=1e-2)
