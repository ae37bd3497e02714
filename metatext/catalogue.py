"""Usual column names, and the well-known data sets whose columns or label names need help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TEXT_COLUMNS = (
    "text", "sentence", "content", "utterance", "query", "review", "review_body", "comment", "tweet", "message", "body",
    "headline", "title", "document", "question", "input",
)  # fmt: skip

TITLE_COLUMNS = ("subject", "title", "headline")
"""Texts that stand over another one."""
UNDER_TITLES = ("summary", "abstract", "description")
"""Texts that stand under a title, where none of `TEXT_COLUMNS` does."""

PAIR_COLUMNS = (
    ("text", "text_pair"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("question", "sentence"),
    ("question", "context"),
)

TARGET_COLUMNS = (
    "label", "labels", "label_text", "label_name", "class", "category", "intent", "target", "topic", "emotion", "sentiment",
    "coarse_label", "type",
)  # fmt: skip

SCORE_COLUMNS = ("score", "scores", "rating", "stars", "similarity")


@dataclass(frozen=True)
class Known:
    """What `load_task` needs to be told about a data set.

    Attributes:
        columns: role -> column, where the usual names would find the wrong one.
        label_names: label as the data set gives it -> text that the encoder reads.
        description: one sentence on the labels.
        drop_unlabelled: rows with a negative label are unlabelled and left out.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    label_names: Mapping[Any, str] = field(default_factory=dict)
    description: str | None = None
    drop_unlabelled: bool = False


_TREC = Known(
    {"text": "text", "label": "coarse_label"},
    {
        "ABBR": "abbreviation", "ENTY": "entity, thing or product", "DESC": "description or definition",
        "HUM": "person or group", "LOC": "place", "NUM": "number, date or amount",
    },
    "What kind of answer does the question ask for?",
)  # fmt: skip
_IMDB = Known({}, {"neg": "negative film review", "pos": "positive film review"}, "Did the reviewer like the film?")
_ENTAILMENT = {
    "entailment": "entailment",
    "neutral": "neutral",
    "contradiction": "contradiction",
    "not_entailment": "not entailment",
}

# Names from before every data set had an owner.
ALIASES = {
    "glue": "nyu-mll/glue",
    "snli": "stanfordnlp/snli",
    "multi_nli": "nyu-mll/multi_nli",
    "ag_news": "fancyzhx/ag_news",
    "dbpedia_14": "fancyzhx/dbpedia_14",
    "yelp_polarity": "fancyzhx/yelp_polarity",
    "yelp_review_full": "Yelp/yelp_review_full",
    "yahoo_answers_topics": "community-datasets/yahoo_answers_topics",
    "banking77": "PolyAI/banking77",
    "go_emotions": "google-research-datasets/go_emotions",
    "tweet_eval": "cardiffnlp/tweet_eval",
}

KNOWN: dict[str, Known] = {
    "stanfordnlp/imdb": _IMDB,
    "imdb": _IMDB,
    "trec": Known({}, _TREC.label_names, _TREC.description),
    "CogComp/trec": _TREC,
    "clinc_oos": Known({"label": "intent"}, {}, "What does the user ask the assistant for?"),
    "clinc/clinc_oos": Known({"label": "intent"}, {}, "What does the user ask the assistant for?"),
    "SetFit/sst2": Known({}, {"negative": "negative", "positive": "positive"}, "Is the sentence positive or negative?"),
    "nyu-mll/glue:cola": Known({"text": "sentence"}, {}, "Is the sentence acceptable English?", True),
    "nyu-mll/glue:sst2": Known({"text": "sentence"}, {}, "Is the sentence positive or negative?", True),
    "nyu-mll/glue:mrpc": Known({}, {}, "Do the two sentences mean the same?", True),
    "nyu-mll/glue:stsb": Known({}, {}, "How similar are the two sentences in meaning?", True),
    "nyu-mll/glue:qqp": Known({}, {}, "Do the two questions ask the same?", True),
    "nyu-mll/glue:mnli": Known({}, _ENTAILMENT, "Does the second sentence follow from the first?", True),
    "nyu-mll/glue:qnli": Known({}, _ENTAILMENT, "Does the sentence answer the question?", True),
    "nyu-mll/glue:rte": Known({}, _ENTAILMENT, "Does the second sentence follow from the first?", True),
    "nyu-mll/glue:wnli": Known({}, _ENTAILMENT, "Does the second sentence follow from the first?", True),
    "stanfordnlp/snli": Known({}, _ENTAILMENT, "Does the second sentence follow from the first?", True),
    "nyu-mll/multi_nli": Known({}, _ENTAILMENT, "Does the second sentence follow from the first?", True),
    "fancyzhx/ag_news": Known({}, {}, "Which section of a newspaper does the article belong to?"),
    "fancyzhx/dbpedia_14": Known({"text": "content"}, {}, "What kind of thing is described?"),
    "fancyzhx/yelp_polarity": Known({}, {"1": "negative review", "2": "positive review"}, "Did the customer like it?"),
    "Yelp/yelp_review_full": Known({}, {}, "How many stars did the customer give?"),
    "community-datasets/yahoo_answers_topics": Known(
        {"text": "question_title", "label": "topic"}, {}, "What is the question about?"
    ),
    "PolyAI/banking77": Known({}, {}, "What does the bank's customer want?"),
    "google-research-datasets/go_emotions:simplified": Known({}, {}, "Which emotion does the comment express?"),
    "cardiffnlp/tweet_eval:sentiment": Known({}, {}, "What is the sentiment of the tweet?"),
    "cardiffnlp/tweet_eval:emotion": Known({}, {}, "Which emotion does the tweet express?"),
    "cardiffnlp/tweet_eval:irony": Known({}, {"non_irony": "not ironic", "irony": "ironic"}, "Is the tweet ironic?"),
    "cardiffnlp/tweet_eval:hate": Known({}, {"non-hate": "no hate speech", "hate": "hate speech"}, "Is the tweet hate speech?"),
    "cardiffnlp/tweet_eval:offensive": Known(
        {}, {"non-offensive": "not offensive", "offensive": "offensive"}, "Is the tweet offensive?"
    ),
    "ucirvine/sms_spam": Known(
        {"text": "sms"}, {"ham": "ordinary message", "spam": "spam, advertisement"}, "Is the text message spam?"
    ),
    "sms_spam": Known({}, {"ham": "ordinary message", "spam": "spam, advertisement"}, "Is the text message spam?"),
    "gen_asset": Known(description="Rewrite the sentence in simpler English."),
    "gen_dialogsum": Known(description="Summarise the dialogue in a few sentences."),
    "gen_e2e_nlg": Known(description="Describe the restaurant in a sentence that says all of these facts."),
    "gen_jfleg": Known(description="Correct the grammar and the wording of the sentence."),
    "gen_qg_xquad": Known(description="Write a question about the passage whose answer is the one given."),
    "gen_shakespeare": Known(description="Rewrite the sentence in the English of Shakespeare."),
    "gen_style_transfer": Known(description="Rewrite the sentence so that it has the opposite sentiment or the wanted style."),
    "gen_webnlg": Known(description="Say all of these facts in natural sentences."),
}
