import csv

import keras

from keras_sagan.callbacks import AttentionGamma


def test_history_and_a_later_csv_logger_see_every_gamma(tmp_path, stub_gan, run_fit):
    gammas = ("generator/self_attention", "discriminator/self_attention")
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = run_fit(stub_gan(gammas=gammas), [AttentionGamma(), logger]).history
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    for name in gammas:
        assert history[f"gamma/{name}"] == [0.125, 0.125]
        assert type(history[f"gamma/{name}"][0]) is float
        assert [float(row[f"gamma/{name}"]) for row in rows] == [0.125, 0.125]


def test_a_model_without_attention_gets_no_key(stub_gan, run_fit):
    assert list(run_fit(stub_gan(gammas=()), [AttentionGamma()]).history) == ["loss"]


def test_logs_may_be_absent(stub_gan):
    callback = AttentionGamma()
    callback.set_model(stub_gan())
    callback.on_epoch_end(0)
