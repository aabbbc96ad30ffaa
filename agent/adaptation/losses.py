"""What a gradient may descend while nobody says what is right; with torch, pure."""

import math

import torch
from torch import Tensor


def entropy(logits: Tensor) -> Tensor:
    """Entropy of each answer in nats, float32 [n], of logits float32 [n, labels].

    Wang, Shelhamer, Liu, Olshausen and Darrell, "Tent: Fully Test-Time Adaptation by Entropy Minimization", ICLR 2021.
    """
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)


def sureness(logits: Tensor, sure: float) -> Tensor:
    """Weight of each answer to learn from, float32 [n]: 0 where it is not sure, else the more, the surer; no gradient.

    Equation 4 of Niu, Wu, Zhang, Chen, Zheng, Zhao and Tan, "Efficient Test-Time Model Adaptation without Forgetting"
    (EATA), ICML 2022: exp(E₀ - entropy), where the entropy is below E₀.

    Args:
        logits: float32 [n, labels].
        sure: E₀ as a share of the greatest entropy that there is; the paper has 0.4.
    """
    uncertain, limit = entropy(logits.detach()), sure * math.log(logits.shape[1])
    return torch.where(uncertain < limit, (limit - uncertain).exp(), torch.zeros_like(uncertain))


def sure_entropy(logits: Tensor, sure: float) -> Tensor:
    """Mean over all answers of the entropy of the sure ones by their weight; see ``entropy`` and ``sureness``."""
    return (sureness(logits, sure) * entropy(logits)).mean()


def feature_consistency(base: Tensor, adapted: Tensor) -> Tensor:
    """‖F_base - F_adapted‖², mean over chips: features float32 [n, dim] are to stay where they are.

    Feature distillation without labels, as of the embedding in Li and Hoiem, "Learning without Forgetting", ECCV 2016,
    with the loss of Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015.
    """
    return ((base - adapted) ** 2).sum(1).mean()


def view_consistency(views: Tensor, logits: Tensor) -> Tensor:
    """How far answers are from the mean of a teacher's answers to several views of the same chips, nats; mean.

    The Kullback-Leibler divergence from the teacher's mean. Averages over augmented copies as the target are of Zhang,
    Levine and Finn, "MEMO: Test Time Robustness via Adaptation and Augmentation", NeurIPS 2022, and of Wang, Fink, Van
    Gool and Dai, "Continual Test-Time Domain Adaptation" (CoTTA), CVPR 2022; that what is learnt keeps to what the
    network answered before, of Li and Hoiem, "Learning without Forgetting", ECCV 2016. A teacher that does not learn
    cannot be talked into anything by its pupil: there is no feedback that could collapse.

    Args:
        views: logits float32 [views, n, labels] of the teacher; no gradient is asked of them.
        logits: float32 [n, labels] of the pupil, to the chips as they are.
    """
    target = views.detach().softmax(2).mean(0)
    divergence: Tensor = torch.special.xlogy(target, target) - target * logits.log_softmax(1)
    return divergence.sum(1).mean()
