"""Two million rows to meta-train on, a hundred thousand to fine-tune on: what is kept in memory, in processes of their own."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from scripts.processes import finish, started
from scripts.train_millions import Memory, make_corpora, make_segment

import metatext as mt

SIZES, CLASSES = [1_500_000, 500_000], 100
BOUND = 2 * 10**9  # bytes of RssAnon + RssShmem
ROWS = 100_000


def until(moment) -> None:
    end = time.monotonic() + 20
    while not moment():
        assert time.monotonic() < end, "did not come within 20 s"
        time.sleep(0.005)


@pytest.fixture
def big_folder(tmp_path):
    """3 GB that pytest would keep for three runs."""
    folder = tmp_path / "big"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_two_million_rows_train_in_two_gigabytes(embedded, big_folder, tmp_path):
    store = mt.FeatureStore(embedded, big_folder / "features", progress=False)
    make_segment(store.folder, sum(SIZES), embedded.dim)
    settings = {
        "encoder": "embedded",
        "cache": str(big_folder / "features"),
        "corpora": make_corpora(big_folder, SIZES, CLASSES),
        "episodes": {"n_way": (2, 100), "k_shot": (0, 16), "n_query": 4, "n_outside": 8, "max_support": 300}
        | {"unbalanced": 0.3, "name_noise": 0.2, "name_variation": 0.3},
        "config": {"meta_steps": 40, "meta_batch_size": 32},
        "output_dir": str(tmp_path / "run"),
        "save_to": str(tmp_path / "found.json"),
    }
    with started("train_millions.py", settings, tmp_path, HF_DATASETS_CACHE=str(big_folder / "datasets")) as process:
        finish(process, timeout=900)
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert (found["rows"], found["steps"]) == (sum(SIZES), 40)
    assert found["encoded"] < 10_000  # label names alone: no text was read again
    assert set(found["peaks"]) >= {"load_task", "encode_tasks", "meta_train"}
    assert max(found["peaks"].values()) < BOUND, found["peaks"]


@pytest.mark.slow
def test_a_hundred_thousand_examples_are_fine_tuned(tiny_folder, tmp_path):
    """From a csv to a saved classifier through the command, in minutes."""
    mt.MetaModel.from_encoder(str(tiny_folder)).save_pretrained(tmp_path / "head")
    letters = np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz"), (ROWS, 8))
    with open(tmp_path / "examples.csv", "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *(("".join(row), f"begins with {row[0]}") for row in letters)])
    command = ["finetune", "--what", "params", "--model", "head", "--examples", "examples.csv", "--output_dir", "out"]
    env = {**os.environ, "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(tmp_path / "datasets")}
    # its own word: what the kernel tells of a child begins with the peak of the process that started it
    code = "import re, sys; from metatext.cli import main; main(sys.argv[1:]); print(re.search(r'VmHWM.*', open('/proc/self/status').read())[0])"
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, *command], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 900 and 1024 * int(done.stdout.split()[-2]) < BOUND
    clf = mt.AdaptedModel.from_pretrained(tmp_path / "out")
    assert clf.finetuning["rows"] == ROWS and clf.is_finetuned
    assert clf.finetuning["fine-tuned"]["loss"] < clf.finetuning["adapted"]["loss"]


def test_memory_without_a_file_behind_it_is_seen():
    """The watch of the test above: 320 MB of ones count, whatever else the process lets go meanwhile."""
    with Memory() as memory:
        until(lambda: "start" in memory.peaks)
        memory.phase = "more"
        ones = np.ones(40_000_000)
        until(lambda: memory.peaks.get("more", 0) >= memory.peaks["start"] + 0.5 * ones.nbytes)
