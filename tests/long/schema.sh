#!/bin/bash
# schema.sh - `weir schema` against a validator that is not ours: Python's jsonschema, with YAML read by PyYAML.
#
# What weir loads must be valid; what weir refuses must be invalid, unless it takes more than shape to see it.  Needs jsonschema
# and PyYAML for the Python in WEIR_PYTHON (default: python3).
set -euo pipefail

: "${WEIR:?set WEIR to the weir program}"
: "${WEIR_SRC:?set WEIR_SRC to the source tree}"
python=${WEIR_PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -c 'import jsonschema, yaml' || {
    echo "schema.sh: $python has no jsonschema or no PyYAML: pip install jsonschema pyyaml" >&2
    exit 69
}
"$WEIR" schema >"$work/schema.json"

cat >"$work/check.py" <<'PYTHON'
import json
import pathlib
import re
import sys

import jsonschema
import yaml


class Core(yaml.SafeLoader):
    """YAML 1.2 core schema; PyYAML's own is that of YAML 1.1, where on is true and 1e-4 is text."""


Core.yaml_implicit_resolvers = {}
for tag, pattern, first in [
    ("null", r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    ("float", r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$", list("-+.0123456789")),
    ("float", r"^([-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN)$", list("-+.")),
]:
    Core.add_implicit_resolver("tag:yaml.org,2002:" + tag, re.compile(pattern), first)


def integer(loader, node):
    text = node.value
    return int(text, 8) if text.startswith("0o") else int(text, 16) if text.startswith("0x") else int(text, 10)


def fraction(loader, node):
    text = node.value.lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


Core.add_constructor("tag:yaml.org,2002:int", integer)
Core.add_constructor("tag:yaml.org,2002:float", fraction)

# What needs a second look at the file, another file, the SPDX list, or arithmetic.
BEYOND = re.compile(
    r"^(circle|fan-in|ref|set|param-file|template|profiles-(chosen|unknown-param|unknown-stage$|add)|"
    r"run-(single-brace|closing-brace|empty-braces|brace-at-end|unclosed|unknown|no-|list-param|dollar)|"
    r"sources-license-(unknown|made-up|small-or|two-words|operator|parenth|extra-parenth|exception|empty)|"
    r"policy-deny-unknown|params-(beyond|hex|infinite|too-large|circle|self|unknown|matrix|too-deep)|params-of-stage-2-53|"
    r"matrix-(twice|too-many-tasks|long-names|from|scalar-values)|device-cuda-no-gpus|resources-ranks|when-one-instance|"
    r"resources-(memory|time)$|schedule-(minute|weekday|step|range|watch-unknown|params)|notify-(env-name|params)|"
    r"publish-(unknown|matrix)|long-text|defaults-param-type$|when-text)"
)

root = pathlib.Path(sys.argv[1])
schema = json.loads(pathlib.Path(sys.argv[2]).read_text())
validator_class = jsonschema.validators.validator_for(schema)
assert validator_class is jsonschema.Draft202012Validator
validator_class.check_schema(schema)
validator = validator_class(schema)
wrong = 0


def pipeline_of(case):
    return re.split(r"^---(?:expected|file .*)---$", case.read_text(), maxsplit=1, flags=re.M)[0]


def complain(text):
    global wrong
    wrong += 1
    print(text)


good = sorted((root / "good").glob("*.case"))
shipped = sorted(root.parent.parent.parent.glob("pipelines/*.yaml"))
for path in good + [root / "example.yaml"] + shipped:
    text = pipeline_of(path) if path.suffix == ".case" else path.read_text()
    for error in validator.iter_errors(yaml.load(text, Core)):
        complain(f"{path.name}: weir loads it, the schema says: {error.json_path}: {error.message}")

refused = passed = 0
for path in sorted((root / "bad").glob("*.case")):
    if path.name.startswith("yaml-"):
        continue  # not a question of the schema
    try:
        value = yaml.load(pipeline_of(path), Core)
    except (yaml.YAMLError, ValueError, OverflowError):
        continue
    valid = validator.is_valid(value)
    if valid and not BEYOND.match(path.stem):
        complain(f"{path.name}: weir refuses it for its shape, the schema does not")
    refused += not valid
    passed += valid
print(f"{len(good)} good cases, {len(shipped)} shipped pipelines and the example are valid;")
print(f"of the bad cases {refused} are invalid, {passed} need weir check")
sys.exit(wrong > 0 or not good or refused < 120)
PYTHON
"$python" "$work/check.py" "$WEIR_SRC/tests/golden/pipeline" "$work/schema.json"
