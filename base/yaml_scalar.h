/* yaml_scalar.h - what a plain scalar is, by the core schema.
 *
 * Life:     called once for each plain scalar, while its node is made.
 * Owns:     nothing.
 * Threads:  any.
 * Errors:   false for digits past every double: a mistake, or a commit such as 12e4567 that wants quotes.
 * Paper:    YAML 1.2.2 specification, chapter 10.3.
 */
#ifndef WEIR_BASE_YAML_SCALAR_H
#define WEIR_BASE_YAML_SCALAR_H

#include "base/yaml.h"

/* Sets type and value of n from n->text. */
MUST_USE bool yaml_scalar_type(struct yaml_node *n);

#endif
