# SPDX-License-Identifier: GPL-2.0-or-later
# The templates that the pillar names, each with its state; what takes a template's place comes before what it replaces.
{%- from "qvm-template/map.jinja" import settings with context %}
{%- set rank = {"installed": 1, "latest": 2, "finalized": 3, "switched": 4, "default": 5, "retired": 6, "absent": 7} %}
{%- for name, template in settings.templates | dictsort %}
{%- set state = template.get("state", "installed") %}
qvm-template-{{ state }}-{{ name }}:
  qvm_template.{{ state }}:
    - name: {{ name }}
    - order: {{ 10000 + rank[state] }}
{%- for key, value in template | dictsort if key != "state" %}
    - {{ key }}: {{ value | json }}
{%- endfor %}
{%- endfor %}
