"""What every method has to be. A fixture ``config`` puts a method to it, beside one named ``backbone``."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from pictures import pictured
from synthetic import feature_set, separable, with_views
from torch import Tensor, nn

from fedmpt.backbone.image_tower import ClipBackbone
from fedmpt.backbone.views import StrongView
from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.scoring import probabilities
from fedmpt.federated.checkpoint import load_checkpoint, save_checkpoint
from fedmpt.federated.client import LocalTraining, local_update
from fedmpt.federated.rounds import Progress
from fedmpt.methods import Method, MethodConfig
from fedmpt.state import get_state, set_state
from fedmpt.types import UNKNOWN, Backbone, Batch, InputError, State

CLASS_NAMES = ("cat", "dog", "x", "dining table", "the o")
TRAINING = LocalTraining(batch_size=8)


class MethodContract:
    """The suite. ``learning_rate`` is one at which the loss falls within a few rounds of three steps;
    ``uses_unlabelled`` says that the loss has a part for images without any label."""

    learning_rate = 0.01
    uses_unlabelled = False

    @pytest.fixture
    def config(self) -> MethodConfig:
        raise NotImplementedError("name the method: a fixture that returns its config")

    @pytest.fixture
    def features(self, method: Method, backbone: Backbone) -> FeatureSet:
        return images(method, backbone)

    @pytest.fixture
    def method(self, config: MethodConfig, backbone: Backbone) -> Method:
        return build(config, backbone)

    def train(self, method: Method, features: FeatureSet, *, rounds: int = 1, weight_decay: float = 1e-5) -> State:
        """Local updates of client 3, each from where the last one ended; nothing for a method without parameters."""
        if method.is_trained:
            train_rounds(
                method,
                features,
                rounds=rounds,
                learning_rate=self.learning_rate,
                training=dataclasses.replace(TRAINING, weight_decay=weight_decay),
            )
        return get_state(method)

    def test_gives_a_probability_for_every_image_and_class(self, method: Method, features: FeatureSet) -> None:
        found = method(whole(features))
        assert found.shape == (len(features), len(CLASS_NAMES))
        assert in_unit_interval(found)
        assert found.dtype == torch.float32
        # Images that look different score differently: no output is stuck.
        assert (found.std(0) > 0).all()

    def test_one_class_is_nothing_to_compare(self, config: MethodConfig, backbone: Backbone) -> None:
        with pytest.raises(InputError, match="compares classes and got 1; give at least two"):
            config.build(backbone, ["cat"], generator=torch.Generator())

    def test_probabilities_stay_in_range_where_similarities_saturate(
        self, config: MethodConfig, backbone: Backbone
    ) -> None:
        sharp = copy.copy(backbone)
        sharp.logit_scale = 1000.0
        method, generator = build(config, sharp), torch.Generator().manual_seed(0)
        wild = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in method.named_parameters()}
        set_state(method, {**get_state(method), **wild})
        # Patches of an image look alike, so all of them are sure of the same class.
        usual = images(method, backbone)
        looks = torch.randn(100, 1, usual.store.facts.width, generator=generator)
        patches = looks + 0.1 * torch.randn(100, usual.store.facts.num_patches, looks.shape[-1], generator=generator)
        seen = feature_set(patches, torch.zeros(100, len(CLASS_NAMES)))
        shapes = {name: usual.views[name].read(torch.tensor([0])).shape[1:] for name in method.views}
        tokens = {name: torch.randn(100, *shape, generator=generator) for name, shape in shapes.items()}
        assert in_unit_interval(method.eval()(whole(with_views(seen, tokens))))

    def test_every_trained_tensor_gets_a_gradient(self, method: Method, features: FeatureSet) -> None:
        assert all(gradient.isfinite().all() for gradient in gradients_of(method, whole(features)).values())
        # In the first step some are zero, behind up-projections that start at zero; after a few steps none may be.
        self.train(method, features)
        for name, gradient in gradients_of(method, whole(features)).items():
            assert gradient.isfinite().all(), name
            assert gradient.abs().max() > 0, f"{name} is never trained"

    def test_training_moves_every_tensor_of_the_state_and_nothing_else(
        self, method: Method, features: FeatureSet, backbone: ClipBackbone
    ) -> None:
        towers = nn.ModuleList([backbone.text_model, backbone.image_blocks])
        frozen = {name: tensor.clone() for name, tensor in towers.state_dict().items()}
        before = get_state(method)
        after = self.train(method, features, rounds=4, weight_decay=0.0)
        assert not [name for name in before if torch.equal(before[name], after[name])]
        assert same(towers.state_dict(), frozen)
        assert all(p.grad is None and not p.requires_grad for p in towers.parameters())

    def test_state_is_what_is_trained(self, method: Method) -> None:
        """And running statistics of batches, which training moves too, where there are some."""
        trained = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
        assert method.state_dict().keys() == trained | {name for name, _ in method.named_buffers()}
        assert bool(dict(method.named_buffers())) == sees_batches(method)
        assert method.is_trained == bool(trained)
        assert all(tensor.dtype == torch.float32 for tensor in method.state_dict().values())

    def test_personal_tensors_are_of_the_state_and_never_sent(self, method: Method, features: FeatureSet) -> None:
        assert method.personal <= method.state_dict().keys()
        if not method.is_trained:
            return
        state, personal = method.split(get_state(method))
        result = local_update(
            method,
            state,
            features,
            personal=personal,
            client=0,
            round_index=1,
            seed=0,
            learning_rate=self.learning_rate,
            training=TRAINING,
        )
        assert result.update.state.keys() == method.state_dict().keys() - method.personal
        assert result.personal.keys() == method.personal

    def test_loss_falls(self, method: Method, features: FeatureSet) -> None:
        before = loss_of(method, features)
        self.train(method, features, rounds=4)
        after = loss_of(method, features)
        assert before.isfinite()
        assert after < 0.9 * before if method.is_trained else after == before

    def test_same_seed_same_numbers(self, config: MethodConfig, backbone: Backbone, features: FeatureSet) -> None:
        results = []
        for noise in (1, 2):
            torch.manual_seed(noise)  # Global randomness must not matter.
            method = build(config, backbone, seed=5)
            results.append(self.train(method, features, rounds=2))
        assert same(*results)

    def test_other_seed_other_start_where_anything_is_drawn(self, config: MethodConfig, backbone: Backbone) -> None:
        generator = torch.Generator().manual_seed(0)
        untouched = generator.get_state()
        first = get_state(config.build(backbone, CLASS_NAMES, generator=generator))
        draws = not torch.equal(generator.get_state(), untouched)
        assert same(first, get_state(build(config, backbone, seed=1))) != draws

    def test_checkpoint_restores_the_numbers(
        self, config: MethodConfig, backbone: Backbone, features: FeatureSet, tmp_path: Path
    ) -> None:
        method = build(config, backbone)
        self.train(method, features)
        shared, personal = method.split(get_state(method))
        stored = Progress(rounds_done=1, state=shared, personal={3: personal} if personal else {})
        save_checkpoint(tmp_path, stored, {"method": config.name})
        loaded = load_checkpoint(tmp_path).progress
        other = build(config, backbone, seed=1)
        set_state(other, {**loaded.state, **loaded.personal.get(3, {})})
        assert torch.equal(probabilities(other, features), probabilities(method, features))

    def test_images_with_unknown_labels_change_nothing(self, method: Method, features: FeatureSet) -> None:
        if self.uses_unlabelled:
            pytest.skip("the loss has a part that needs no labels")
        method.eval()  # Statistics of a batch are of all its images.
        labels = features.labels.clone()
        labels[::2] = UNKNOWN
        rows = torch.arange(len(features))
        others = features.subset(torch.where(rows % 2 == 0, rows + 1, rows))
        losses, gradients = [], []
        for some in (features, others):
            batch = whole(dataclasses.replace(some, labels=labels))
            losses.append(method.loss(batch))
            gradients.append(gradients_of(method, batch))
        torch.testing.assert_close(losses[1], losses[0], atol=0, rtol=1e-6)
        torch.testing.assert_close(gradients[1], gradients[0], atol=1e-7, rtol=1e-4)
        # The same images with known labels do count.
        known = [dataclasses.replace(some, labels=features.labels) for some in (features, others)]
        first, second = (method.loss(whole(some)) for some in known)
        assert first != second

    def test_labels_count_by_their_weights(self, method: Method, features: FeatureSet) -> None:
        if not method.is_trained:
            return
        method.eval()  # Statistics of a batch are of all its images.
        labels = features.labels.clone()
        labels[::2, 1] = UNKNOWN
        batch = whole(dataclasses.replace(features, labels=labels))
        weights = 0.2 + 3 * torch.rand(labels.shape, generator=torch.Generator().manual_seed(3))
        losses = [
            method.loss(dataclasses.replace(batch, weights=some))
            for some in (None, torch.ones_like(weights), weights, weights.masked_fill(labels == UNKNOWN, 20.0))
        ]
        torch.testing.assert_close(losses[1], losses[0])
        assert (losses[2] - losses[0]).abs() > 1e-3 * losses[0]
        assert torch.equal(losses[3], losses[2]), "unknown labels cost nothing, whatever they weigh"
        usual, weighed = (gradients_of(method, dataclasses.replace(batch, weights=some)) for some in (None, weights))
        assert all(gradient.isfinite().all() for gradient in weighed.values())
        assert not same(usual, weighed)

    def test_unknown_labels_can_be_held_to_the_servers_model(self, method: Method, features: FeatureSet) -> None:
        if not method.is_trained:
            return
        labels = features.labels.index_fill(1, torch.tensor([1, 3]), UNKNOWN)
        start, some = get_state(method), dataclasses.replace(features, labels=labels)

        def after(weight: float, batch_size: int) -> State:
            set_state(method, start)
            training = LocalTraining(batch_size=batch_size, global_consistency=weight)
            train_rounds(method, some, rounds=1, learning_rate=self.learning_rate, training=training)
            return get_state(method)

        assert not same(after(100, 8), after(0, 8))
        usual = method.optimizer(learning_rate=1.0, momentum=0.0, weight_decay=0.0)
        # In the first step the model is the server's, so nothing pulls. Adam would make a step of rounding errors.
        if not sees_batches(method) and isinstance(usual, torch.optim.SGD):
            torch.testing.assert_close(after(1, len(some)), after(0, len(some)), atol=1e-6, rtol=1e-4)

    def test_an_image_scores_the_same_in_any_company(self, method: Method, features: FeatureSet) -> None:
        self.train(method, features)
        together = probabilities(method, features)
        alone = probabilities(method, features, batch_size=1)
        backwards = method(features.batch(torch.arange(len(features)).flip(0))).flip(0)
        torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)
        torch.testing.assert_close(backwards, together, atol=1e-5, rtol=0)

    def test_text_may_be_computed_once(self, method: Method, features: FeatureSet) -> None:
        self.train(method, features)
        batch = whole(features)
        method.eval()  # What training draws is another thing.
        assert torch.equal(method(batch, method.encode_text()), method(batch))
        assert torch.equal(method.loss(batch, method.encode_text()), method.loss(batch))

    def test_trains_in_evaluation_mode_and_scores_in_training_mode_alike(
        self, method: Method, features: FeatureSet
    ) -> None:
        alike = torch.equal(method.train()(whole(features)), method.eval()(whole(features)))
        assert alike != sees_batches(method)


def images(method: Method, backbone: Backbone) -> FeatureSet:
    """Two dozen images of `CLASS_NAMES`, three steps of `TRAINING`, with all the method reads of them."""
    num_images, num_classes = 24, len(CLASS_NAMES)
    views = {**method.views, **method.training_views}
    if any(not isinstance(view, StrongView) for view in views.values()):
        return pictured(backbone, views, num_images=num_images, num_classes=num_classes)
    features = separable(num_images, num_classes=num_classes, width=backbone.text_model.config.projection_dim)
    # Another view of an image has features like its own.
    batch, generator = whole(features), torch.Generator().manual_seed(7)
    tokens = torch.cat([batch.pooled[:, None], batch.patches], dim=1)[:, None]
    return with_views(features, {name: tokens + 0.3 * torch.randn(tokens.shape, generator=generator) for name in views})


def train_rounds(
    method: Method, features: FeatureSet, *, rounds: int, learning_rate: float, training: LocalTraining = TRAINING
) -> None:
    """Local updates of client 3, each from where the last one ended."""
    for round_index in range(1, rounds + 1):
        state, personal = method.split(get_state(method))
        local_update(
            method,
            state,
            features,
            personal=personal,
            client=3,
            round_index=round_index,
            seed=0,
            learning_rate=learning_rate,
            training=training,
        )


def sees_batches(method: Method) -> bool:
    """Whether an image's score in training depends on the others of its batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in method.modules())


def build(config: MethodConfig, backbone: Backbone, *, seed: int = 0) -> Method:
    return config.build(backbone, CLASS_NAMES, generator=torch.Generator().manual_seed(seed))


def whole(features: FeatureSet) -> Batch:
    return features.batch(torch.arange(len(features)))


@torch.no_grad()
def loss_of(method: Method, features: FeatureSet) -> Tensor:
    return method.loss(whole(features))


def gradients_of(method: Method, batch: Batch) -> dict[str, Tensor]:
    """By name, of all trained tensors; every one has to take part in the loss."""
    named = dict(method.named_parameters())
    gradients = torch.autograd.grad(method.loss(batch), list(named.values())) if named else ()
    return dict(zip(named, gradients, strict=True))


def in_unit_interval(found: Tensor) -> bool:
    return bool(((found >= 0) & (found <= 1)).all())


def same(one: State, other: State) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
