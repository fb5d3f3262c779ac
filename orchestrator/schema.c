/* The text below is JSON, turned into a C string by the preprocessor: hand-kept beside the loader, in the order of the
 * format.  A description is what an editor shows where the cursor is. */
#include "orchestrator/schema.h"

#include <string.h>

#define TEXT(...) #__VA_ARGS__

/* clang-format off */
static const char text[] = TEXT({
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "weir pipeline, format 1",
  "type": "object",
  "required": ["weir", "name", "stages"],
  "additionalProperties": false,
  "properties": {
    "weir": {"const": 1, "description": "version of the format"},
    "name": {"$ref": "#/$defs/name", "description": "name of the pipeline"},
    "description": {"type": ["string", "null"]},
    "params": {"$ref": "#/$defs/params", "description": "visible as ${params.NAME}; --set NAME=VALUE overrides"},
    "profiles": {
      "description": "overlays, chosen with --profile NAME; several are laid on left to right",
      "type": ["object", "null"],
      "propertyNames": {"$ref": "#/$defs/name"},
      "additionalProperties": {"$ref": "#/$defs/profile"}
    },
    "sources": {"$ref": "#/$defs/sources"},
    "policy": {"$ref": "#/$defs/policy"},
    "defaults": {"$ref": "#/$defs/defaults"},
    "stages": {
      "description": "what runs; each stage can override the defaults",
      "type": "object",
      "minProperties": 1,
      "propertyNames": {"$ref": "#/$defs/name", "not": {"const": "sources"}},
      "additionalProperties": {
        "allOf": [
          {"$ref": "#/$defs/stage"},
          {"required": ["outputs"], "oneOf": [{"required": ["uses"]}, {"required": ["run"]}]}
        ]
      }
    },
    "publish": {"$ref": "#/$defs/publish"},
    "schedule": {"$ref": "#/$defs/schedule"},
    "notify": {"$ref": "#/$defs/notify"}
  },
  "$defs": {
    "name": {"type": "string", "pattern": "^[a-z][a-z0-9-]*$", "maxLength": 100},
    "param_name": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$", "maxLength": 100},
    "literal": {"type": "string", "not": {"pattern": "\\$\\{"}},
    "duration": {
      "description": "a whole number and s, m, h or d",
      "type": "string",
      "pattern": "^[0-9]+[smhd]$"
    },
    "long_duration": {
      "description": "a whole number above 0 and s, m, h or d",
      "type": "string",
      "pattern": "^0*[1-9][0-9]*[smhd]$"
    },
    "size": {
      "description": "a whole number above 0 and KiB, MiB, GiB or TiB",
      "type": "string",
      "pattern": "^0*[1-9][0-9]*(KiB|MiB|GiB|TiB)$"
    },
    "value": {
      "description": "any YAML; integers up to 2^53",
      "type": ["null", "boolean", "string", "number", "array", "object"]
    },
    "params": {
      "type": ["object", "null"],
      "propertyNames": {"$ref": "#/$defs/param_name"},
      "additionalProperties": {"$ref": "#/$defs/value"}
    },
    "reference": {
      "description": "sources.NAME, STAGE.OUTPUT, STAGE[key=value].OUTPUT or STAGE[*].OUTPUT",
      "type": "string",
      "anyOf": [
        {"pattern": "^sources\\.[a-z][a-z0-9-]*$"},
        {"pattern": "^[a-z][a-z0-9-]*(\\[[^\\[\\]]*\\])?\\.[a-z][a-z0-9-]*$"},
        {"pattern": "\\$\\{"}
      ]
    },
    "input": {
      "oneOf": [
        {"$ref": "#/$defs/reference"},
        {
          "description": "a fan-in: a directory with one entry per reference",
          "type": "array",
          "minItems": 1,
          "items": {"$ref": "#/$defs/reference"}
        }
      ]
    },
    "source": {
      "type": "object",
      "additionalProperties": false,
      "properties": {
        "path": {
          "description": "file, directory or glob, relative to this file",
          "$ref": "#/$defs/literal",
          "minLength": 1
        },
        "deb": {
          "description": "a Debian package; fetched, not installed; the lock file pins version and digest",
          "type": "string",
          "pattern": "^[a-z0-9][a-z0-9+.-]+$"
        },
        "url": {
          "description": "fetched; needs sha256",
          "type": "string",
          "pattern": "^(https|http|file)://[^ \\t\\n\"<>\\\\^`{|}]+$"
        },
        "artifact": {
          "description": "[PIPELINE/]STAGE.OUTPUT@NAME or ...@run-N; its licence comes with it",
          "type": "string",
          "pattern": "^[a-z][a-z0-9-]*(/[a-z][a-z0-9-]*)?(\\[[^\\]]*\\])?\\.[a-z][a-z0-9-]*@[A-Za-z0-9._-]+$"
        },
        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "license": {
          "description": "SPDX expression; LicenseRef-... for others; NOASSERTION when it is not known",
          "$ref": "#/$defs/literal",
          "minLength": 1
        },
        "attribution": {"$ref": "#/$defs/literal"},
        "records": {
          "description": "JSON lines {path, license, attribution, url}; files not listed take the source's",
          "$ref": "#/$defs/literal"
        }
      }
    },
    "sources": {
      "description": "everything that enters from outside, each with its licence",
      "type": ["object", "null"],
      "propertyNames": {"$ref": "#/$defs/name"},
      "additionalProperties": {
        "$ref": "#/$defs/source",
        "oneOf": [
          {
            "required": ["path", "license"],
            "properties": {"deb": false, "url": false, "artifact": false, "sha256": false}
          },
          {
            "required": ["deb", "license"],
            "properties": {"url": false, "artifact": false, "sha256": false, "records": false}
          },
          {
            "required": ["url", "license", "sha256"],
            "properties": {"artifact": false, "records": false}
          },
          {"required": ["artifact"], "properties": {"sha256": false, "records": false}}
        ]
      }
    },
    "licences": {
      "type": "array",
      "items": {"type": "string", "pattern": "^[A-Za-z0-9.+:-]+( WITH [A-Za-z0-9.-]+)?$"}
    },
    "policy": {
      "description": "checked when planning, again when a task's licences are known, and before an export leaves",
      "type": ["object", "null"],
      "additionalProperties": false,
      "properties": {
        "licenses": {
          "type": ["object", "null"],
          "additionalProperties": false,
          "properties": {
            "deny": {"$ref": "#/$defs/licences"},
            "allow_only": {"description": "when not empty, all else is denied", "$ref": "#/$defs/licences"}
          }
        },
        "require_clean_git": {"description": "refuse a dirty work tree", "type": "boolean"}
      }
    },
    "resources": {
      "type": ["object", "null"],
      "additionalProperties": false,
      "properties": {
        "cpus": {"type": "integer", "minimum": 1, "maximum": 65536},
        "memory": {"$ref": "#/$defs/size"},
        "gpus": {"type": "integer", "minimum": 0, "maximum": 65536},
        "nodes": {"type": "integer", "minimum": 1, "maximum": 65536},
        "ranks": {"type": "integer", "minimum": 1, "maximum": 1048576},
        "time": {"description": "ends one attempt: checkpoint, requeue", "$ref": "#/$defs/long_duration"}
      }
    },
    "retries": {
      "type": ["object", "null"],
      "additionalProperties": false,
      "properties": {
        "attempts": {"description": "number of tries", "type": "integer", "minimum": 1, "maximum": 1000},
        "backoff": {"$ref": "#/$defs/duration"}
      }
    },
    "checkpoint": {
      "type": ["object", "null"],
      "additionalProperties": false,
      "properties": {
        "every": {"$ref": "#/$defs/long_duration"},
        "keep": {"type": "integer", "minimum": 1, "maximum": 1000}
      }
    },
    "timeout": {"description": "ends the task: failure", "$ref": "#/$defs/long_duration"},
    "device": {"description": "part of the key", "enum": ["cpu", "cuda"]},
    "env": {
      "description": "variables passed through and part of the key",
      "type": ["array", "null"],
      "uniqueItems": true,
      "items": {
        "type": "string",
        "pattern": "^[A-Za-z_][A-Za-z0-9_]*$",
        "not": {"pattern": "^(WEIR_.*|HOME|TMPDIR|LC_ALL|TZ|OMP_NUM_THREADS|CUDA_VISIBLE_DEVICES)$"}
      }
    },
    "defaults": {
      "description": "for every stage, each overridable there",
      "type": ["object", "null"],
      "additionalProperties": false,
      "properties": {
        "resources": {"$ref": "#/$defs/resources"},
        "retries": {"$ref": "#/$defs/retries"},
        "checkpoint": {"$ref": "#/$defs/checkpoint"},
        "timeout": {"$ref": "#/$defs/timeout"},
        "device": {"$ref": "#/$defs/device"},
        "env": {"$ref": "#/$defs/env"},
        "params": {"$ref": "#/$defs/params"}
      }
    },
    "stage": {
      "type": "object",
      "additionalProperties": false,
      "properties": {
        "uses": {
          "description": "a shipped program; NAME@sha256:... pins one build of it",
          "type": "string",
          "pattern": "^[a-z][a-z0-9-]*(@sha256:[0-9a-f]{64})?$"
        },
        "run": {
          "description": "any program; a string goes through sh -c, a list runs without a shell",
          "oneOf": [
            {"type": "string", "pattern": "[^ \\t\\n]"},
            {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean"]}}
          ]
        },
        "code": {
          "description": "files and folders copied to the working directory; their digest is keyed",
          "type": ["array", "null"],
          "uniqueItems": true,
          "items": {
            "type": "string",
            "minLength": 1,
            "not": {"pattern": "\\$\\{|^/|//|(^|/)\\.\\.?(/|$)"}
          }
        },
        "env": {"$ref": "#/$defs/env"},
        "inputs": {
          "type": ["object", "null"],
          "propertyNames": {"$ref": "#/$defs/name"},
          "additionalProperties": {"$ref": "#/$defs/input"}
        },
        "outputs": {
          "type": "array",
          "minItems": 1,
          "uniqueItems": true,
          "items": {"$ref": "#/$defs/name"}
        },
        "params": {"$ref": "#/$defs/params"},
        "matrix": {
          "description": "cross product; task NAME[key=value]",
          "type": ["object", "null"],
          "maxProperties": 16,
          "propertyNames": {"$ref": "#/$defs/param_name"},
          "additionalProperties": {
            "oneOf": [
              {"type": "string", "pattern": "^\\$\\{params\\.[a-z][a-z0-9_]*\\}$"},
              {
                "type": "array",
                "minItems": 1,
                "uniqueItems": true,
                "items": {
                  "anyOf": [
                    {"type": ["number", "boolean"]},
                    {
                      "type": "string",
                      "maxLength": 100,
                      "pattern": "^[^\\u0000- \\u007f\\[\\]{},=/*%$\\\\\"'.][^\\u0000- \\u007f\\[\\]{},=/*%$\\\\\"']*$"
                    },
                    {"type": "string", "pattern": "\\$\\{params\\."}
                  ]
                }
              }
            ]
          }
        },
        "when": {
          "description": "false skips it and what needs it",
          "oneOf": [
            {"type": "boolean"},
            {"type": "string", "pattern": "^\\$\\{(params|matrix)\\.[a-z][a-z0-9_]*\\}$"}
          ]
        },
        "device": {"$ref": "#/$defs/device"},
        "resources": {"$ref": "#/$defs/resources"},
        "checkpoint": {"$ref": "#/$defs/checkpoint"},
        "retries": {"$ref": "#/$defs/retries"},
        "timeout": {"$ref": "#/$defs/timeout"}
      },
      "dependentSchemas": {"uses": {"properties": {"code": {"type": "null"}}}}
    },
    "publish": {
      "description": "refs that move when a complete, unaltered run succeeds",
      "type": ["object", "null"],
      "propertyNames": {
        "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$",
        "maxLength": 100,
        "not": {"pattern": "^run-[0-9]+$"}
      },
      "additionalProperties": {
        "anyOf": [
          {"$ref": "#/$defs/reference", "not": {"pattern": "^sources\\.|\\[\\*\\]"}},
          {"type": "null"}
        ]
      }
    },
    "schedule": {
      "description": "used by weir serve",
      "type": ["array", "null"],
      "items": {
        "type": "object",
        "additionalProperties": false,
        "properties": {
          "cron": {
            "description": "minute hour day month weekday",
            "type": "string",
            "pattern": "^ *[0-9*,/-]+ +[0-9*,/-]+ +[0-9*,/-]+ +[0-9a-zA-Z*,/-]+ +[0-9a-zA-Z*,/-]+ *$"
          },
          "timezone": {
            "description": "as in Asia/Shanghai; UTC when left out",
            "type": "string",
            "maxLength": 64,
            "pattern": "^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z][A-Za-z0-9_+-]*)*$"
          },
          "watch": {"type": "string", "pattern": "^sources\\.[a-z][a-z0-9-]*$"},
          "settle": {"$ref": "#/$defs/duration"},
          "params": {"$ref": "#/$defs/params"}
        },
        "oneOf": [
          {"required": ["cron"], "properties": {"settle": false}},
          {"required": ["watch"], "properties": {"timezone": false}}
        ]
      }
    },
    "notify": {
      "type": ["array", "null"],
      "items": {
        "type": "object",
        "required": ["events", "webhook"],
        "additionalProperties": false,
        "properties": {
          "events": {
            "type": "array",
            "minItems": 1,
            "items": {"enum": ["started", "succeeded", "failed", "stopped"]}
          },
          "webhook": {
            "description": "a URL, in which ${env.NAME} may stand",
            "type": "string",
            "pattern": "^(https?://|\\$\\{env\\.)"
          }
        }
      }
    },
    "overlay": {
      "description": "a stage in a profile; null takes a key away",
      "type": "object",
      "additionalProperties": false,
      "properties": {
        "uses": {}, "run": {}, "code": {}, "env": {}, "inputs": {}, "outputs": {}, "params": {}, "matrix": {},
        "when": {}, "device": {"enum": ["cpu", "cuda", null]}, "resources": {}, "checkpoint": {}, "retries": {},
        "timeout": {}
      }
    },
    "profile": {
      "type": ["object", "null"],
      "additionalProperties": false,
      "properties": {
        "params": {"$ref": "#/$defs/params"},
        "sources": {"type": ["object", "null"]},
        "policy": {"$ref": "#/$defs/policy"},
        "defaults": {"$ref": "#/$defs/defaults"},
        "stages": {
          "type": ["object", "null"],
          "propertyNames": {"$ref": "#/$defs/name"},
          "additionalProperties": {"$ref": "#/$defs/overlay"}
        },
        "publish": {"$ref": "#/$defs/publish"},
        "schedule": {"$ref": "#/$defs/schedule"},
        "notify": {"$ref": "#/$defs/notify"}
      }
    }
  }
});
/* clang-format on */

enum err_code schema_json(json_t **out, struct err *err)
{
    CHECK(out);
    if (json_parse(text, strlen(text), sizeof(text), "schema", out, err))
        return err_set(err, ERR_BUG, "the schema's text is no JSON: %s", err->text);
    return OK;
}
