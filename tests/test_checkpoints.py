"""Checkpoints: whole or not there, few, and restored bit for bit."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from metatext import HeadConfig, MetaModel
from metatext import checkpoints as module
from metatext.checkpoints import Checkpoints, check_same_run, moments_of, put_moments
from metatext.settings import ConfigError
from metatext.storage import StorageError


def trained(steps: int, dtype=torch.float32) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A small module with two parameter groups and its optimizer after some steps."""
    torch.manual_seed(0)
    head = nn.Linear(4, 3).to(dtype)
    groups = [{"params": [head.bias], "weight_decay": 0.0}, {"params": [head.weight], "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    advance(head, optimizer, steps)
    return head, optimizer


def advance(head: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        head(torch.arange(8.0).reshape(2, 4).to(head.weight)).square().sum().backward()
        optimizer.step()


def save(checkpoints: Checkpoints, step: int) -> None:
    head, optimizer = trained(step)
    checkpoints.save(step, head.state_dict(), moments_of(optimizer), {"step": step})


def saved(folder: Path, steps=(1, 2, 3), limit: int = 5) -> Checkpoints:
    checkpoints = Checkpoints(folder, limit)
    for step in steps:
        save(checkpoints, step)
    return checkpoints


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_restored_run_goes_on_bit_for_bit(tmp_path, dtype):
    head, optimizer = trained(3, dtype)
    state = {"step": 3, "best": {"eval_loss": 0.1 + 0.2}, "history": [{"step": 1, "loss": 1 / 3}], "name": "ü"}
    Checkpoints(tmp_path, 2).save(3, head.state_dict(), moments_of(optimizer), state)
    read = Checkpoints(tmp_path, 2).latest()
    assert read.folder == tmp_path / "checkpoint-3"
    assert read.state == state
    other, fresh = trained(1, dtype)
    for group in fresh.param_groups:
        group["lr"] = 0.1
    other.load_state_dict(read.tensors)
    put_moments(fresh, read.moments)
    for module_, optimizer_ in ((head, optimizer), (other, fresh)):
        advance(module_, optimizer_, 2)
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), other.parameters(), strict=True))
    assert [group["weight_decay"] for group in fresh.param_groups] == [0.0, 0.1]


def test_restored_before_the_first_step(tmp_path):
    head, optimizer = trained(0)
    Checkpoints(tmp_path, 1).save(0, head.state_dict(), moments_of(optimizer), {"step": 0})
    other, fresh = trained(2)
    read = Checkpoints(tmp_path, 1).latest()
    other.load_state_dict(read.tensors)
    put_moments(fresh, read.moments)
    assert torch.equal(head.weight, other.weight)
    assert not fresh.state


def test_restore_of_another_head_is_an_error(tiny, tmp_path):
    model, other = (MetaModel.from_encoder(tiny, HeadConfig("metanet", hidden_dim=size)) for size in (8, 9))
    Checkpoints(tmp_path, 1).save(1, model.tensors(), {}, {"step": 1})
    checkpoint = Checkpoints(tmp_path, 1).latest()
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_tensors(checkpoint.tensors)


def test_rotation_keeps_the_newest(tmp_path):
    saved(tmp_path / "run", steps=(8, 9, 10, 11), limit=2)  # by number, not by name
    assert names(tmp_path / "run") == ["checkpoint-10", "checkpoint-11"]
    assert saved(tmp_path / "one", limit=1).latest().state == {"step": 3}
    assert names(tmp_path / "one") == ["checkpoint-3"]


def test_nothing_there(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none", 2)
    assert checkpoints.latest() is None
    checkpoints.clear()
    assert not (tmp_path / "none").exists()


def test_clear(tmp_path):
    checkpoints = saved(tmp_path / "run")
    checkpoints.clear()
    assert checkpoints.latest() is None


def test_foreign_folders_are_left_alone(tmp_path):
    for name in ("checkpoint-best", "checkpoint-", ".draft-7-1", "notes"):
        (tmp_path / name).mkdir()
    checkpoints = saved(tmp_path, limit=1)
    assert checkpoints.latest().state == {"step": 3}
    assert {"checkpoint-3", "checkpoint-best", "notes"} <= set(names(tmp_path))


FOREIGN = {
    "pytorch_model.bin": "weights",
    "trainer_state.json": '{"global_step": 500}',
}  # as the Trainer of transformers writes them


@pytest.mark.parametrize("named", [[], ["pytorch_model.bin"], list(FOREIGN)])
def test_checkpoints_of_others_are_refused_and_never_deleted(tmp_path, named):
    checkpoints = saved(tmp_path, limit=1)
    checkpoints.check()
    theirs = tmp_path / "checkpoint-500"
    theirs.mkdir()
    for name in named:
        (theirs / name).write_text(FOREIGN[name])
    with pytest.raises(ConfigError, match=r"checkpoint-500 holds no trainer_state.json that metatext wrote.*another output_dir"):
        checkpoints.check()
    save(checkpoints, 4)
    checkpoints.clear()
    assert names(tmp_path) == ["checkpoint-500"] and names(theirs) == sorted(named)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "trainer_state.json"])
@pytest.mark.parametrize("damage", [cut, Path.unlink, lambda path: path.write_bytes(b"")], ids=["cut", "missing", "empty"])
def test_damaged_newest_falls_back_to_the_previous(tmp_path, caplog, file, damage):
    checkpoints = saved(tmp_path)
    damage(tmp_path / "checkpoint-3" / file)
    with caplog.at_level(logging.WARNING):
        assert checkpoints.latest().folder == tmp_path / "checkpoint-2"
    assert "passing over a damaged checkpoint" in caplog.text
    assert str(tmp_path / "checkpoint-3" / file) in caplog.text


def test_all_damaged(tmp_path, caplog):
    checkpoints = saved(tmp_path)
    for path in tmp_path.glob("*/trainer_state.json"):
        cut(path)
    assert checkpoints.latest() is None
    assert caplog.text.count("passing over a damaged checkpoint") == 3


def test_a_damaged_checkpoint_is_replaced_when_its_step_comes_again(tmp_path, caplog):
    checkpoints = saved(tmp_path)
    cut(tmp_path / "checkpoint-3" / "model.safetensors")
    assert checkpoints.latest().state == {"step": 2}
    save(checkpoints, 3)
    caplog.clear()
    assert checkpoints.latest().state == {"step": 3}
    assert not caplog.text


def test_a_damaged_newer_one_does_not_count_towards_the_limit(tmp_path):
    checkpoints = saved(tmp_path, limit=1)
    cut(tmp_path / "checkpoint-3" / "model.safetensors")
    save(checkpoints, 2)
    assert names(tmp_path) == ["checkpoint-2"] and checkpoints.latest().state == {"step": 2}


@pytest.mark.parametrize("name", ["write_tensors", "write_json", "rename"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, StorageError("no space left on the disk")], ids=["interrupt", "full"])
def test_interrupted_save_leaves_no_half_folder(tmp_path, monkeypatch, name, error):
    checkpoints = saved(tmp_path, limit=1)

    def fails(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module.os if name == "rename" else module, name, fails)
        with pytest.raises(error if isinstance(error, type) else type(error)):
            save(checkpoints, 4)
    assert names(tmp_path) == ["checkpoint-3"]  # and the older one stays until the newer is safe
    save(checkpoints, 4)
    assert names(tmp_path) == ["checkpoint-4"]


def test_draft_of_a_killed_process_is_not_a_checkpoint_and_goes(tmp_path):
    """kill -9 leaves a draft behind; it is never read, and the next save takes it away."""
    checkpoints = saved(tmp_path)
    draft = tmp_path / ".draft-9-123456"
    (tmp_path / "checkpoint-3").rename(draft)
    assert checkpoints.latest().state == {"step": 2}
    save(checkpoints, 4)
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-2", "checkpoint-4"]


def test_other_settings_are_named():
    before = {"train": {"meta_lr": 0.1, "seed": 0}, "tasks": {"a": 5, "b": 6}, "episodes": {"n_way": [2, 4]}}
    check_same_run(before, {"episodes": {"n_way": [2, 4]}, **before}, Path("runs/x"))
    check_same_run(before, {"flags": {"tasks": ["a"]}, **before}, Path("runs/x"))  # runs did not write them before
    now = {"train": {"meta_lr": 0.2, "seed": 0}, "tasks": {"a": 5, "c": 1}, "episodes": {"n_way": 2}}
    with pytest.raises(ConfigError) as caught:
        check_same_run(before, now, Path("runs/x"))
    assert str(caught.value) == (
        "runs/x holds a run with other settings (episodes.n_way: [2, 4] -> 2; tasks.b: 6 -> None; tasks.c: None -> 1; "
        "train.meta_lr: 0.1 -> 0.2). Give another output_dir, or set overwrite_output_dir to start anew."
    )


def test_another_precision_is_another_run_but_where_a_checkpoint_does_not_say_its_own():
    before = {"train": {"seed": 0}}
    check_same_run(before, {"mixed_precision": "bf16", **before}, Path("x"))
    check_same_run({"mixed_precision": "bf16", **before}, {"mixed_precision": "bf16", **before}, Path("x"))
    with pytest.raises(ConfigError, match=r"other settings \(mixed_precision: 'bf16' -> 'no'\)"):
        check_same_run({"mixed_precision": "bf16", **before}, {"mixed_precision": "no", **before}, Path("x"))


def test_many_other_settings_are_counted_not_cut_silently():
    now = {"tasks": {f"task {i:02d}": 1 for i in range(12)}}
    with pytest.raises(ConfigError, match=r"task 07.*overwrite_output_dir") as caught:
        check_same_run({"tasks": {}}, now, Path("x"))
    assert "task 08" not in str(caught.value)
    assert "4 more" in str(caught.value)


@pytest.mark.parametrize("act", [lambda kept: save(kept, 4), Checkpoints.clear])
def test_a_kill_while_an_old_one_is_deleted(tmp_path, monkeypatch, act):
    """Files of a folder are deleted in any order: without its trainer_state.json it would be another program's."""
    checkpoints = saved(tmp_path, limit=3)

    def killed(folder, **_):
        if (Path(folder) / "trainer_state.json").unlink(missing_ok=True) is None and "-1" in Path(folder).name:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("metatext.checkpoints.shutil.rmtree", killed)
        act(checkpoints)
    again = Checkpoints(tmp_path, 3)
    again.check()
    assert again.latest().state["step"] in (3, 4)
    save(again, 5)
    assert not list(tmp_path.glob(".draft-*"))
