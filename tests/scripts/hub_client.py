"""A process that runs snippets: a line of JSON {"code", "values"} in, one {"answer", "error", "trace", "log"} out.

One process serves many tests, since importing torch and transformers takes seconds. Names stay from snippet to snippet; waiting
between two tries takes no time.
"""

import io
import json
import logging
import sys
import time
import traceback

time.sleep = lambda seconds: None
out, sys.stdout = sys.stdout, sys.stderr  # what a snippet prints is no answer
log = io.StringIO()
logging.basicConfig(stream=log, level=logging.DEBUG)
for name in ("filelock", "httpcore", "httpcore2"):  # what goes over the wire, byte by byte, is no log of ours
    logging.getLogger(name).setLevel(logging.WARNING)

import huggingface_hub  # noqa: E402

huggingface_hub.logging.set_verbosity_debug()
huggingface_hub.logging.enable_propagation()
names = {}

for line in sys.stdin:
    asked = json.loads(line)
    names |= {**asked["values"], "answer": None}
    said = {"answer": None, "error": None, "trace": ""}
    log.truncate(0)
    try:
        exec(asked["code"], names)
        said["answer"] = names["answer"]
    except BaseException as error:
        said |= {"error": [type(error).__name__, str(error)], "trace": traceback.format_exc()}
    print(json.dumps({**said, "log": log.getvalue()}), file=out, flush=True)
