"""Copies of training images: against definitions, scikit-learn, scipy, and planted copies."""

import numpy as np
import pytest
from tiny_evaluation import Pixels

from keras_sagan.metrics import Memorization, evaluate_images, memorization
from keras_sagan.metrics.memorization import ct_score, memorization_scores, nearest


def samples(count, seed, dim=6, clusters=0.0):
    """Normal samples, or those of 4, 3 and 2 tenths around the corners of a triangle."""
    rng = np.random.default_rng(seed)
    result = rng.normal(size=(count, dim))
    result[:, :3] += clusters * np.eye(3)[rng.choice(3, count, p=(0.5, 0.3, 0.2))]
    return result


def distances(queries, points):
    return np.sqrt(((queries[:, None] - points) ** 2).sum(axis=-1))


def test_nearest_points_and_excluded_ones():
    points = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0], [0.0, 6.0]])
    found = nearest(points[[0, 1, 3]] + [0.0, 0.0], points, exclude=np.array([0, 1, 3]))
    assert found[0].tolist() == [5.0, 0.0, pytest.approx(13**0.5)] and found[1][1] == 2
    queries, points = samples(600, 0), samples(90, 1)  # more than a block of rows
    expected = distances(queries, points)
    found = nearest(queries, points)
    np.testing.assert_allclose(found[0], expected.min(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(found[1], expected.argmin(axis=1))


def test_authentic_samples_by_their_definition():
    training, generated = samples(80, 0), 0.9 * samples(300, 1)
    among = distances(training, training) + np.diag([np.inf] * 80)
    count = 0
    for sample in generated:
        to_training = [np.linalg.norm(sample - x) for x in training]
        closest = int(np.argmin(to_training))
        count += min(among[closest]) < to_training[closest]
    scores = memorization_scores(training, generated)
    assert scores == {"authpct": pytest.approx(100 * count / 300, abs=1e-6)}
    assert 10 < scores["authpct"] < 90


def test_copies_of_repeated_training_samples_are_not_authentic():
    training = np.repeat(samples(40, 0, dim=300), 2, axis=0) + 100
    assert memorization_scores(training, training[::3]) == {"authpct": 0.0}


def z_score(first, second):
    """By scipy, with the mean and the deviation of the hypothesis as in dgm-eval."""
    stats = pytest.importorskip("scipy.stats")
    n, m = len(first), len(second)
    u = stats.mannwhitneyu(first, second, alternative="less").statistic
    return (u - (n * m / 2 - 0.5)) / np.sqrt(n * m * (n + m + 1) / 12)


@pytest.mark.parametrize("dim", [6, 70])
def test_ct_score_equals_dgm_evals(dim):
    """Cells are unique where clusters are far apart, and so is the score."""
    cluster = pytest.importorskip("sklearn.cluster")
    decomposition = pytest.importorskip("sklearn.decomposition")
    sets = [samples(count, i, dim, 60.0) for i, count in enumerate((200, 90, 96))]
    sets[2][:30] = sets[0][:30] + 0.1
    score = ct_score(*sets)
    if dim > 64:
        components = decomposition.PCA(64, svd_solver="full").fit(sets[0])
        sets = [components.transform(x) for x in sets]
    k_means = cluster.KMeans(3, n_init=10, random_state=1).fit(sets[0])
    cells = [k_means.predict(x) for x in sets]
    total = weight = 0
    for i in range(3):
        training, held_out, generated = (x[which == i] for x, which in zip(sets, cells))
        if len(generated) > 20:
            near = [distances(x, training).min(axis=1) for x in (generated, held_out)]
            total, weight = total + len(held_out) * z_score(*near), weight + len(held_out)
    assert min(np.bincount(cells[2])) <= 20 and 0 < weight < 90  # A cell is skipped.
    assert score == pytest.approx(total / weight, abs=1e-6) and score < -1


def test_ct_score_of_few_or_equal_samples():
    training, held_out = samples(30, 0), samples(30, 1)
    assert np.isnan(ct_score(training, held_out, samples(20, 2)))
    assert np.isnan(ct_score(training[:1], held_out[:1] + 9, samples(20, 2)))
    assert ct_score(training[:1], held_out, held_out) == pytest.approx(0.0, abs=0.01)
    assert np.isfinite(ct_score(np.ones((9, 2)), np.ones((9, 2)), np.ones((30, 2))))


def test_planted_copies_are_found(monkeypatch):
    monkeypatch.setattr(memorization, "_RESTARTS", 1)  # is quicker
    training, held_out, generated = (samples(1000, i, 16) for i in range(3))
    floor = memorization_scores(training, held_out, held_out)
    assert floor["memorized"] == 0.002 and abs(floor["ct_score"]) < 1e-3
    found = [memorization_scores(training, generated, held_out)]
    assert found[0]["memorized"] < 0.006 and abs(found[0]["ct_score"]) < 3
    for percent in (1, 5, 20):
        count = 10 * percent
        generated[:count] = training[:count] + 1e-3 * samples(count, 3, 16)
        found.append(memorization_scores(training, generated, held_out))
        assert found[-1]["memorized"] == pytest.approx(percent / 100, abs=0.006)
    for name in ("authpct", "ct_score"):
        values = [scores[name] for scores in found]
        assert values == sorted(values, reverse=True) and len(set(values)) == 4
    assert found[-1]["ct_score"] < -2 and found[-1]["authpct"] < floor["authpct"] - 5


def test_held_out_duplicates_hide_no_copies():
    training, held_out = samples(100, 0), samples(100, 1)
    held_out[:2] = training[:2]
    generated = np.concatenate([training[50:60], samples(90, 2)])
    assert memorization_scores(training, generated, held_out)["memorized"] == 0.1


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="`training` must have at least 2 samples. Received: 1"):
        memorization_scores(samples(1, 0), samples(4, 1))
    with pytest.raises(ValueError, match="`held_out` must have shape"):
        memorization_scores(samples(3, 0), samples(4, 1), samples(4, 2, dim=5))


def test_progress_is_told():
    told = []
    memorization_scores(samples(20, 0), samples(300, 1), None, lambda *x: told.append(x))
    assert told == [(256, 300), (300, 300)]


def pixels(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1)).astype("uint8")


def test_a_report_has_the_scores_and_their_floor():
    training, held_out, images = pixels(200, 0), pixels(150, 1), pixels(100, 2)
    images[:30] = training[:30]
    settings = {"feature_extractor": Pixels(), "verbose": False}
    report = evaluate_images(images, training, held_out=held_out, **settings)
    flat = [x.reshape(-1, 16) / 127.5 - 1 for x in (training, images, held_out)]
    expected = memorization_scores(*flat)
    assert {name: report.values[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    floor = report.baselines["real"]
    assert floor["memorized"] < 0.02 < 0.3 <= report.values["memorized"]
    assert report.values["authpct"] < floor["authpct"] < report.baselines["noise"]["authpct"] + 15
    assert report.values["ct_score"] < -2 < floor["ct_score"]
    assert "memorized" in str(report) and len(report.protocol["held_out_sha256"]) == 64
    without = evaluate_images(images, training, "memorization", **settings)
    assert without.values == {"authpct": report.values["authpct"]}
    assert "held_out_sha256" not in without.protocol
    few = evaluate_images(images[:62], training, "memorization", held_out=held_out, **settings)
    assert "ct_score may be NaN: a cell needs 21 generated images" in few.notes[1]


def test_scores_of_a_named_metric():
    metric = Memorization(lambda x: x, name="own")
    metric.update_features(samples(9, 0), real=True)
    metric.update_features(samples(9, 1), real=False)
    assert list(metric.result()) == ["own_authpct"]
