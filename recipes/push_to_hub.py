"""Share a trained head, or an adapted classifier, on the Hub.

What:   a saved folder -> a repo: config.json, model.safetensors, a model card with the figures of the folder's metrics.json (or of
        --metrics), in one commit. A folder that holds a README.md is pushed with it as the card.
Needs:  a folder that meta_train.py or adapt.py wrote; a token that may write (`hf auth login`, or HF_TOKEN).
Launch: python recipes/push_to_hub.py runs/quickstart me/my-head --private
        python recipes/push_to_hub.py runs/tickets me/my-classifier --create_pr
Load:   mt.MetaModel.from_pretrained("me/my-head"), mt.AdaptedModel.from_pretrained("me/my-classifier")
"""

from metatext.cli import run

if __name__ == "__main__":
    run("push", description=__doc__)
