"""Attention crops of one map, step by step as method section 1 states them, with scikit-image's Otsu and components."""

import numpy as np
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops


def bilinear(activation, size):
    """Each pixel from the four map cells around its centre; cells' centres lie at half-integers."""
    h, w = activation.shape
    out = np.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            y = max(0.0, (row + 0.5) * h / size[0] - 0.5)
            x = max(0.0, (column + 0.5) * w / size[1] - 0.5)
            y0, x0 = min(int(y), h - 1), min(int(x), w - 1)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            fy, fx = y - y0, x - x0
            upper = activation[y0, x0] * (1 - fx) + activation[y0, x1] * fx
            lower = activation[y1, x0] * (1 - fx) + activation[y1, x1] * fx
            out[row, column] = upper * (1 - fy) + lower * fy
    return out


def scaled(activation, size):
    large = bilinear(np.asarray(activation, dtype=np.float64), size)
    return (large - large.min()) / (large.max() - large.min()) * 255


def iou(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def boxes(activation, size, per_image, most, whole_most):
    """(left, top, right, bottom) of the kept crops, largest first."""
    image = scaled(activation, size)
    regions = regionprops(label(image > threshold_otsu(image), connectivity=2))
    found = [(r.bbox[1], r.bbox[0], r.bbox[3], r.bbox[2]) for r in regions]
    found.sort(key=lambda b: (-(b[2] - b[0]) * (b[3] - b[1]), b[1], b[0]))
    kept = []
    for box in found:
        near = any(iou(box, other) > most for other in kept)
        if len(kept) < per_image and iou(box, (0, 0, size[1], size[0])) < whole_most and not near:
            kept.append(box)
    return kept
