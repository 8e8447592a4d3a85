"""The formulas of method sections 1 and 3 written slowly, one loop a sum, to compare the fast ones with."""

import math


def rank(activations, j, q):
    """Rank of image q of candidate j among all images of all candidates: 0 = highest, equal ones share the mean."""
    mine = activations[j][q]
    every = [value for images in activations for value in images]
    higher = sum(1 for value in every if value > mine)
    equal = sum(1 for value in every if value == mine)
    return higher + (equal - 1) / 2


def mean(activations, j):
    own = [rank(activations, j, q) for q in range(len(activations[j]))]
    return sum(own) / len(own)


def topk_squared(activations, j, beta):
    own = sorted(rank(activations, j, q) for q in range(len(activations[j])))[:beta]
    return sum(r * r for r in own) / len(own)


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def image_products(activations, images, own, j, beta):
    order = sorted(range(len(activations[j])), key=lambda q: (rank(activations, j, q), q))[:beta]
    cosines = [cosine(images[j][q], top) for q in order for top in own]
    return sum(cosines) / len(cosines)


def combined(activations, images, own, j, beta):
    count = len(activations)
    squared = [topk_squared(activations, i, beta) for i in range(count)]
    position = sorted(range(count), key=lambda i: (squared[i], i)).index(j)
    return (count - position) * image_products(activations, images, own, j, beta)


def pearson(a, c):
    n = len(a)
    ma, mc = sum(a) / n, sum(c) / n
    top = sum((x - ma) * (y - mc) for x, y in zip(a, c, strict=True))
    below = math.sqrt(sum((x - ma) ** 2 for x in a) * sum((y - mc) ** 2 for y in c))
    return top / below if below else 0.0


def positives(a, share):
    count = max(1, round(share * len(a)))
    return set(sorted(range(len(a)), key=lambda i: (-a[i], i))[:count])


def auprc(a, c, share):
    """Sum over thresholds of (recall gained) times precision there."""
    true = positives(a, share)
    total, before = 0.0, 0.0
    for threshold in sorted(set(c), reverse=True):
        chosen = [i for i in range(len(c)) if c[i] >= threshold]
        hits = sum(1 for i in chosen if i in true)
        recall, precision = hits / len(true), hits / len(chosen)
        total += (recall - before) * precision
        before = recall
    return total


def f1_iou(a, c, share):
    true, said = positives(a, share), positives(c, share)
    both = len(true & said)
    precision, recall = both / len(said), both / len(true)
    f1 = 2 * precision * recall / (precision + recall) if both else 0.0
    return f1, both / len(true | said)


def activation_rate(concept, threshold):
    return sum(1 for value in concept if value > threshold) / len(concept)


def cosy_auc(control, concept):
    return sum(1 for x in control for y in concept if x < y) / (len(control) * len(concept))


def cosy_mad(control, concept):
    mean_control = sum(control) / len(control)
    spread = math.sqrt(sum((x - mean_control) ** 2 for x in control) / len(control))
    return (sum(concept) / len(concept) - mean_control) / spread if spread else 0.0
