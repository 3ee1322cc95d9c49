"""How often `terrazzo compare` sees a difference between equals: `python benchmarks/significance.py RUN RUN`.

The results of two real models are exchanged at random on each image, which makes them equally good, and compared on as
many images drawn from their test set.
"""

from __future__ import annotations

import sys

import numpy as np

from terrazzo.evaluation.compare import SPLIT, contestant, own_data
from terrazzo.evaluation.shared_images import Entrant, SharedImages
from terrazzo.metrics.paired import LEVEL, paired_differences

TRIALS, DRAWS = 1000, 1000
IMAGES = (6, 8, 12, 20, 50, 100)


def main() -> None:
    models = [contestant(path, path, None, None, trust=False) for path in sys.argv[1:3]]
    classes = models[0].segmenter.classes
    images = SharedImages(own_data(models, None), SPLIT, classes, where="the runs")
    first, second = (images.count(Entrant.of(model.segmenter)) for model in models)
    rng = np.random.default_rng(0)
    print(f"p below {LEVEL} in {TRIALS} comparisons of equally good models:")
    for count in IMAGES:
        found = 0
        for _ in range(TRIALS):
            chosen = rng.integers(0, len(first), count)
            swaps = rng.integers(0, 2, (count, 1, 1)) > 0
            pair = (np.where(swaps, one[chosen], other[chosen]) for one, other in ((first, second), (second, first)))
            found += paired_differences(*pair, classes, DRAWS)["mIoU"].p < LEVEL
        print(f"{count:4} images: {100 * found / TRIALS:.1f}%")


if __name__ == "__main__":
    main()
