"""By what a norm bank is made."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What decides, beside the faces, what a norm bank becomes.

    Attributes:
        seed: of all that is random.
        threads: of PyTorch and ONNX Runtime.
        images: most of FER2013's training images.
        faces: most of the photographs.
        steps: of training, for each condition; those that are gone on from need none.
        people_steps: of training what only people are told apart by.
        batch: faces in a step.
        learning_rate: highest of the one-cycle schedule (Smith and Topin, "Super-Convergence", 2018), relative to the
            mean size of what is learnt: factors of the default pack are 0.004 to 20, and the steps of Adam, which are
            all of one length, that suit one layer throw another one over.
        filter_rate: likewise for the filter, whose 80 outer numbers move together.
        clip: the gradient's greatest norm.
        bfloat16: twice as fast on processors with AVX512-BF16, slower on others.
        held: share of the faces that are held aside.
        consistency: weight of 1 - cos of the embeddings.
        contrast: weight of the cross entropy of naming a face's own clean embedding among those of others.
        temperature: divides the cosines in that. Those of strangers lie between 0.75 and 0.92 for the default pack.
        relations: weight of the mean square difference of the cosines to others from the teacher's.
        others: how many there are.
        expression: weight of the teacher's expressions, 0 to 1; the labels have the rest.
        samples: chips of each condition for the classifier.
        penalty: on the squares of the classifier's weights.
    """

    seed: int = 0
    threads: int = 2
    images: int = 12_000
    faces: int = 1800
    steps: int = 400
    people_steps: int = 80
    batch: int = 32
    learning_rate: float = 1e-2
    filter_rate: float = 5e-4
    clip: float = 1.0
    bfloat16: bool = True
    held: float = 0.1
    consistency: float = 10.0
    contrast: float = 0.5
    temperature: float = 0.02
    relations: float = 800.0
    others: int = 512
    expression: float = 0.8
    samples: int = 600
    penalty: float = 1e-3
