"""A third-party criterion: |w · ∂L/∂w|, how much the loss moves if the weight goes (Mozer & Smolensky 1989)."""

import prunebench as pb


@pb.criterion("saliency", needs=("gradients",))
def saliency(layer):
    """|w · g| with g the mean gradient over the data given; of the weight's shape, higher = keep."""
    return (layer.weight * layer.grad).abs()
