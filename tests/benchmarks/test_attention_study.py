"""The attention study in miniature, its statistics and its page."""

import functools

import attention_study
import attention_study_page
import numpy as np
import pytest
import receptive_field

from keras_sagan import SAGAN
from keras_sagan.layers.self_attention import attention_layers

TINY = "--batch_size 2 --steps 1 --num_training 8 --num_samples 6 --jobs 0".split()
NAMES = ["pairs_2_both_16_0", "figures_4_none_0"]


@pytest.mark.slow
def test_runs_in_miniature(tmp_path, monkeypatch, capsys):
    # One step is made, and tracing takes longer than it.
    monkeypatch.setattr(SAGAN, "compile", functools.partialmethod(SAGAN.compile, run_eagerly=True))
    places = ["--workdir", str(tmp_path / "records"), "--scratch", str(tmp_path / "runs")]
    records = attention_study.main([*TINY, *places, "--only", *NAMES])
    assert list(records) == NAMES and "agreement 8: " in capsys.readouterr().out
    pairs, figures = records.values()
    assert pairs["steps"] == figures["steps"] == 1
    assert pairs["scores"].keys() == {"8", "16", "24"} and len(pairs["attention_gamma"]) == 2
    assert figures["scores"].keys() == {"8", "24"} and figures["attention_gamma"] == {}
    paths = sorted((tmp_path / "records").iterdir())
    assert [path.stem for path in paths] == sorted(NAMES)
    assert all(path.stat().st_size < 3000 for path in paths)
    assert len(list((tmp_path / "runs" / "checkpoints").iterdir())) == 2
    page = attention_study_page.page(attention_study_page.load(tmp_path / "records"))
    assert "2 of 104 runs have finished" in page
    attention_study_page.draw(
        attention_study_page.load(tmp_path / "records"), tmp_path / "figure.png"
    )
    assert (tmp_path / "figure.png").stat().st_size > 5000


@pytest.mark.slow
def test_networks_without_attention_have_at_least_as_many_parameters():
    for blocks in (2, 4):
        counts = {}
        for place in ("none", "both_8", "both_16") if blocks == 2 else ("none", "both_16"):
            run = {"set": "pairs", "blocks": blocks, "attention": place, "seed": 0}
            model = attention_study.build(run)
            counts[place] = [n.count_params() for n in (model.generator, model.discriminator)]
        for place in counts.keys() - {"none"}:
            for without, with_attention in zip(counts["none"], counts[place]):
                assert 1 <= without / with_attention < 1.1


@pytest.mark.slow
def test_the_receptive_field_by_formula_is_that_of_the_gradients():
    for blocks in (2, 4):
        run = {"set": "figures", "blocks": blocks, "attention": "none", "seed": 0}
        network = attention_study.build(run).discriminator
        expected = receptive_field.by_gradient(network)
        assert receptive_field.by_formula(blocks) == expected


@pytest.mark.slow
def test_without_attention_the_logit_cannot_depend_on_whether_distant_squares_agree():
    images = np.zeros((4, 32, 32, 3), "float32")
    colors = np.array([[0.5, -0.5, 0.0], [-0.5, 0.0, 0.5]])
    for (left, right), image in zip(((0, 0), (1, 1), (0, 1), (1, 0)), images):
        image[:8, :8], image[:8, 24:] = colors[left], colors[right]
    differences = {}
    for place in ("none", "d_8", "d_16"):
        run = {"set": "figures", "blocks": 2, "attention": place, "seed": 0}
        network = attention_study.build(run).discriminator
        for layer in attention_layers(network).values():
            layer.gamma.assign(1.0)
        same_1, same_2, other_1, other_2 = np.asarray(network(images))[:, 0]
        differences[place] = abs(same_1 + same_2 - other_1 - other_2)
    assert differences["none"] < 1e-4 < 1e-3 < min(differences["d_8"], differences["d_16"])


def test_the_receptive_field_by_hand():
    # One block without pooling: two 3 x 3 convolutions see five pixels, fewer at the border.
    found = receptive_field.by_formula(1, image_size=8, num_downsamples=0)
    assert found[0] == (0, 2) and found[4] == (2, 6) and found[7] == (5, 7)
    # Two blocks that halve the map: 2 + 2 * 2 = 6 pixels of the first, then 6 * 2 + 4 = 16.
    assert receptive_field.by_formula(2)[3] == (6, 21)
    shares = [receptive_field.seen_together(receptive_field.by_formula(2), d) for d in (8, 16, 24)]
    assert shares == [0.75, 0.25, 0]  # Pixels 16 to 21 of 16 to 23, 20 and 21 of 20 to 27, none.
    assert receptive_field.seen_together(receptive_field.by_formula(4), 24) == 1


def test_every_cell_has_its_seeds_and_first_seeds_come_first():
    runs = attention_study.all_runs(8)
    assert len(runs) == 8 * (7 + 2 + 2 + 2)
    assert [run["seed"] for run in list(runs.values())[:14]] == [0] * 7 + [1] * 7


def test_the_interval_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(1).normal(0.3, 1, 8)
    found = attention_study_page.bootstrap_interval(values)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=99_999, method="percentile", random_state=0
    ).confidence_interval
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert np.isnan(attention_study_page.bootstrap_interval([1.0])).all()


def test_p_values_by_hand_and_by_scipy():
    assert attention_study_page.sign_flip([1, 2, 3]) == 0.25  # Two of eight choices of signs.
    assert attention_study_page.sign_flip([]) == 1
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).normal(0.5, 1, 8)
    expected = stats.permutation_test(
        (values, np.zeros(8)), lambda x, y: np.mean(x - y), permutation_type="samples"
    ).pvalue
    assert attention_study_page.sign_flip(values) == pytest.approx(expected)
    np.testing.assert_allclose(attention_study_page.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])


def test_only_large_effects_are_found_with_few_seeds():
    # Of five seeds, even the smallest p-value is 2 / 32.
    assert attention_study_page.smallest_effect(5) == np.inf
    assert 0.9 < attention_study_page.smallest_effect(8) < 1.6


@pytest.mark.parametrize("gain", [0.4, -0.4])
def test_the_page_says_whether_the_expectations_held(gain):
    rng, records = np.random.default_rng(0), {}
    distances = {"pairs": ("8", "16", "24"), "figures": ("8", "24")}
    for name, run in attention_study.all_runs(attention_study.SEEDS).items():
        noise, helps = 0.02 * rng.normal(), run["attention"] in ("d_16", "both_16")
        scores = {"asymmetry": 0.5 - gain * helps + noise, "held_out": 0.2}
        if run["set"] != "emoji":
            is_far = {d: d == "24" for d in distances[run["set"]]}
            helps &= run["blocks"] == 2 or run["set"] == "figures"
            scores = {
                d: {"agreement": 0.5 + gain * helps * far + noise, "spread": [1.0, 1.0]}
                for d, far in is_far.items()
            }
        records[name] = {**run, "scores": scores, "not_finite": None}
    found = [x.split(" | ")[1:] for x in attention_study_page.expectations(records)[2:8]]
    held = [is_held for is_held, _ in found]
    if gain > 0:
        assert held == ["yes", "not contradicted", *["yes"] * 4]
        assert found[0][1] == "helps: D at 16, both at 16 |"
    else:
        assert held == ["not shown", "not contradicted", "-", "-", "no", "no"]
    del records["emoji_4_none_7"]
    assert attention_study_page.expectations(records)[7].endswith("| - | not finished |")
    del records["figures_4_none_7"]
    assert attention_study_page.expectations(records) == []


def test_the_page_is_what_the_records_say():
    page = attention_study_page.page(attention_study_page.load())
    assert attention_study_page.PAGE.read_text(encoding="utf-8") == page
