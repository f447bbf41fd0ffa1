"""The study of small data in miniature."""

import functools
import gzip
import json

import common
import numpy as np
import pytest
import small_data
import small_data_pictures

from keras_sagan import SAGAN, data

TINY = (
    "--base_filters 4 --batch_size 4 --steps 1 --num_images 20 --num_real 40 --num_stacked 30 "
    "--num_triples 8"
)
PICTURES = {"few_images.png", "few_images_neighbours.png"}
NAMES = ["garments_1000_relativistic_with_0", "stacked_hinge_with_0"]
NAMES += ["leaky_1000_relativistic_without_0"]


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype("uint8").tobytes()))


@pytest.mark.slow
def test_a_run_of_each_kind_in_miniature(tmp_path, capsys, monkeypatch):
    # One step is made, and tracing takes longer than it.
    monkeypatch.setattr(SAGAN, "compile", functools.partialmethod(SAGAN.compile, run_eagerly=True))
    images, labels = data.load_fashion_mnist()
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images[:1000, ..., 0])
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", labels[:1000])
    record = tmp_path / "record.json"
    arguments = [*TINY.split(), "--jobs", "0", "--workdir", str(tmp_path / "records")]
    arguments += ["--scratch", str(tmp_path / "runs")]
    arguments += ["--data_dir", str(tmp_path), "--only", *NAMES, "--json", str(record)]
    small_data.main(arguments)
    records = {path.name for path in (tmp_path / "records").iterdir()}
    assert records == {f"{name}.json" for name in NAMES}  # The checkpoints are elsewhere.
    assert (tmp_path / "runs" / "checkpoints").is_dir()
    found = json.loads(record.read_text())
    garments, stacked, leaky = (found["runs"][name] for name in NAMES)
    assert leaky["scores"].keys() == garments["scores"].keys()
    assert garments["steps"] == stacked["steps"] == 1 and garments["not_finite"] is None
    assert garments["scores"].keys() >= {"fid", "kid", "precision", "recall"}
    # The images that it trained on are the first of the reference.
    assert garments["distance_to_training"] == garments["distance_to_test"] > 0
    assert 1 <= stacked["modes"] <= 30 and stacked["reverse_kl"] > 0
    assert found["protocol"]["num_generated"] == 20
    assert "--data_dir DATA_DIR" in found["command"]
    assert [len(found["rows"][task]) for task in small_data.TASKS] == [1, 1, 1]
    assert "nearer to training" in capsys.readouterr().out
    folders = ["--scratch", str(tmp_path / "runs"), "--data_dir", str(tmp_path)]
    chosen = ["--rows", "relativistic_with", "--steps", "1", "--base_filters", "4"]
    small_data_pictures.main([*folders, "--output", str(tmp_path), *chosen])
    assert {path.name for path in tmp_path.glob("few_images*")} == PICTURES
    with pytest.raises(ValueError, match="--scratch must have the finished run garments_1000_hin"):
        small_data_pictures.main([*folders, "--rows", "hinge_with", *chosen[2:]])


def test_modes_are_counted():
    classes = np.indices((10, 10, 10)).reshape(3, -1)
    assert small_data.modes_of(*classes) == (1000, pytest.approx(0))
    assert small_data.modes_of(*classes[:, :10]) == (10, pytest.approx(np.log(100)))


def test_every_setting_has_its_seeds_and_first_seeds_come_first():
    runs = small_data.all_runs(3)
    assert len(runs) == 24 + 6 + 8
    assert [run["seed"] for run in list(runs.values())[:14]] == [0] * 14


def test_the_guide_has_the_recorded_tables():
    record = json.loads((common.RESULTS / "small_data.json").read_text())
    guide = (common.ROOT / "docs" / "guides" / "few_images.md").read_text(encoding="utf-8")
    for rows in filter(None, record["rows"].values()):
        assert "\n".join(small_data.markdown(rows)) in guide
    assert set(record["runs"]) == {x.stem for x in (common.RESULTS / "small_data").iterdir()}
    table = (common.ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert f"All {len(record['runs'])} runs are recorded" in table


def test_a_table_for_the_guide():
    rows = [{"images": 1000, "loss": "hinge", "seeds": 2, "fid": 12.345, "fid ±": 0.5}]
    rows += [{**rows[0], "images": 500, "fid ±": float("nan")}]
    assert small_data.markdown(rows) == [
        "| images | loss | fid |",
        "|---|---|---|",
        "| 1,000 | hinge | 12.3 ± 0.5 |",
        "| 500 | hinge | 12.3 |",
    ]
