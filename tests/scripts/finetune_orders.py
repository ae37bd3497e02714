"""Fine-tunes on letters, in this process: ``python finetune_orders.py settings.json`` with a list of `run` arguments."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np


def orders(n: int, seed: int = 0):
    """Texts of six letters, an a and a b among them; the label is the one that comes first. Which letters there are says nothing."""
    import metatext as mt

    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        letters = rng.choice(list("mnopqrst"), 6)
        letters[np.sort(rng.permutation(6)[:2])] = ["a", "b"] if i % 2 else ["b", "a"]
        rows.append({"text": "".join(letters), "label": "ab" if i % 2 else "ba"})
    return mt.load_task(rows, name="which letter comes first")


def die(save: int) -> None:
    """Get kill -9 behind this checkpoint, on the last process of the launch."""
    from metatext.fit import Fit

    keep, last = Fit.save, int(os.environ.get("WORLD_SIZE", "1")) - 1
    seen = []

    def kept(fit, **options):
        keep(fit, **options)
        seen.append(fit)
        fit.accelerator.wait_for_everyone()
        if len(seen) == save and fit.accelerator.process_index == last:
            os.kill(os.getpid(), signal.SIGKILL)

    Fit.save = kept


def run(
    encoder: str,
    save_to: str,
    rows: int,
    config: dict,
    *,
    output_dir: str | None = None,
    die_at: int | None = None,
    double: bool = True,
) -> None:
    """Fine-tune, and save answers to other rows, and how often a layer computed in bfloat16."""
    import torch
    from torch.nn.modules.module import register_module_forward_hook

    import metatext as mt

    torch.set_num_threads(1)
    if die_at is not None:
        die(die_at)
    model = mt.MetaModel.from_encoder(encoder)
    if double:  # Adam makes rounding larger; but autocast leaves float64 as it is
        model.double()
    half = []
    with register_module_forward_hook(lambda module, inputs, out: half.append(getattr(out, "dtype", None) == torch.bfloat16)):
        clf = mt.finetune(model, orders(rows), config=mt.FinetuneConfig(**config), output_dir=output_dir)
    answers = clf.predict_proba(orders(40, seed=1).inputs())
    residual = {name: tensor.cpu().numpy() for name, tensor in clf.residual.items()}
    np.savez(
        save_to.format(rank=os.environ.get("LOCAL_RANK", "0")),
        answers=answers,
        half=sum(half),
        loss=clf.finetuning["fine-tuned"]["loss"],
        **residual,
    )


if __name__ == "__main__":
    for arguments in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        run(**arguments)
